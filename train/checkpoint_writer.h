// Checkpoints are written by a thread while training goes on: begin() copies the numbers, which takes as long as memory does, and the disk
// has until the next one.
#pragma once
#include <exception>
#include <filesystem>
#include <mutex>
#include <thread>

#include "engine/snapshot.h"
#include "train/checkpoint.h"

namespace lc {

class CheckpointWriter {
 public:
  CheckpointWriter(std::filesystem::path checkpoints, std::int64_t keep) : checkpoints_(std::move(checkpoints)), keep_(keep) {}
  ~CheckpointWriter() { join(); }  // what was begun is completed
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  void reserve(const LangCell& model) { snapshot_.reserve(model.parameters()); }
  // All three throw what went wrong with the one that was begun before. Model and facts must live until it is complete; their numbers may
  // change, their shape and names may not.
  void begin(CheckpointContents contents);  // waits until the one before is complete
  void wait();                              // until what was begun is complete on the disk
  void check() { throw_failure(); }         // waits for nothing

 private:
  void join();
  void throw_failure();

  const std::filesystem::path checkpoints_;
  const std::int64_t keep_;
  ParameterSnapshot snapshot_;
  std::thread thread_;
  std::mutex mutex_;  // of failure_
  std::exception_ptr failure_;
};

}  // namespace lc
