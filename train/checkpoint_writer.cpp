#include "train/checkpoint_writer.h"

#include <utility>

#include "engine/quiet_thread.h"

namespace lc {

void CheckpointWriter::begin(CheckpointContents contents) {
  wait();
  snapshot_.take(contents.model.parameters());
  thread_ = quiet_thread([this, contents = std::move(contents)] {
    try {
      write_checkpoint(checkpoints_, contents, snapshot_, keep_);
    } catch (...) {
      const std::lock_guard lock(mutex_);
      failure_ = std::current_exception();
    }
  });
}

void CheckpointWriter::wait() {
  join();
  throw_failure();
}

void CheckpointWriter::join() {
  if (thread_.joinable()) thread_.join();
}

void CheckpointWriter::throw_failure() {
  const std::lock_guard lock(mutex_);
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

}  // namespace lc
