// Errors are exceptions; each class carries the exit code that `main` ends the process with.
// The text of an error is one line: what, where (file:object), why, what to do.
#pragma once
#include <stdexcept>
#include <string>

namespace lc {

class Error : public std::runtime_error {
 public:
  Error(int exit_code, const std::string& what) : std::runtime_error(what), exit_code_(exit_code) {}
  int exit_code() const { return exit_code_; }

 private:
  int exit_code_;
};

struct UsageError : Error {
  explicit UsageError(const std::string& what) : Error(2, what) {}
};  // command line, configuration
struct DataError : Error {
  explicit DataError(const std::string& what) : Error(3, what) {}
};  // an input: which file, which object, what was found, what to do
struct ModelError : Error {
  explicit ModelError(const std::string& what) : Error(4, what) {}
};  // a model folder or checkpoint
struct ResourceError : Error {
  explicit ResourceError(const std::string& what) : Error(5, what) {}
};  // memory, disk, device
struct PeerError : Error {
  explicit PeerError(const std::string& what) : Error(6, what) {}
};  // another rank, MPI, NCCL
struct NumericalError : Error {
  explicit NumericalError(const std::string& what) : Error(7, what) {}
};
struct ShapeError : Error {
  explicit ShapeError(const std::string& what) : Error(70, what) {}
};  // our own bug: `word: wanted …, got …`
struct Stopped : Error {
  explicit Stopped(const std::string& what) : Error(75, what) {}
};  // on request, resumable

}  // namespace lc
