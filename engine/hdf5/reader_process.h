// This process's side of the reader of files: starts it, asks it, waits for it, notices when it dies or goes silent.
#pragma once
#include <sys/types.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "engine/hdf5/object.h"
#include "engine/hdf5/progress.h"
#include "engine/hdf5/socket.h"
#include "engine/hdf5/verbs.h"

namespace lc::h5 {

// The reader died of a question, or was ended over it; or it had, before this one.
struct ReaderLost : DataError {
  enum class How { signalled, circled, left, earlier };
  ReaderLost(const std::string& what, How how_, int signal_ = 0) : DataError(what), how(how_), signal(signal_) {}
  How how;
  int signal;  // that it died of
};

class ReaderProcess {
 public:
  // The one of this process, started when there is none. ResourceError when it cannot be.
  static std::shared_ptr<ReaderProcess> get();
  ReaderProcess();
  ~ReaderProcess();
  ReaderProcess(const ReaderProcess&) = delete;
  ReaderProcess& operator=(const ReaderProcess&) = delete;

  // The answer's result; an error of the reader is thrown as what it is. file: named when the reader dies of the question (ReaderLost;
  // ResourceError where this machine has no memory for a reader).
  Wire ask(const Wire& question, const std::string& file, int descriptor = -1);
  void forget(std::uint32_t object) noexcept;  // with the next question
  pid_t process() const { return process_; }

 private:
  void start();
  std::optional<Wire> answer_to(const Wire& question, const std::string& file, int descriptor);
  [[noreturn]] void lost(const std::string& file, int status);

  std::mutex mutex_;
  std::vector<std::uint32_t> forgotten_;
  pid_t process_ = -1;
  std::optional<Socket> socket_;
  int descriptor_ = -1;  // of the socket
  Progress* progress_ = nullptr;
  bool alive_ = false;
};

}  // namespace lc::h5
