#include "engine/hdf5/reader_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <ctime>
#include <string_view>
#include <utility>

#include "engine/errors.h"
#include "engine/hdf5/sandbox.h"
#include "engine/machine.h"

extern char** environ;

namespace lc::h5 {

namespace {

constexpr double kBusySeconds = 3;      // of the reader's CPU time without a byte moved: it goes round in circles
constexpr double kSilentSeconds = 300;  // without either: a disk or a stopped process

struct OwnDescriptor {  // closed when nobody took it
  int number = -1;
  ~OwnDescriptor() {
    if (number >= 0) ::close(number);
  }
  int release() { return std::exchange(number, -1); }
};

[[noreturn]] void cannot_start(const char* step, int code) {
  throw ResourceError(fmt::format("the reader of files cannot be started: {}: {}; check the limits on processes, open files and memory",
                                  step, std::strerror(code)));
}

std::vector<char*> environment() {  // nothing that changes what HDF5 does
  std::vector<char*> kept;
  for (char** entry = environ; *entry; ++entry)
    if (!std::string_view(*entry).starts_with("HDF5_")) kept.push_back(*entry);
  kept.push_back(nullptr);
  return kept;
}

pid_t spawn(int socket, int shared) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDWR, 0);
  posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_RDWR, 0);
  posix_spawn_file_actions_adddup2(&actions, socket, kSocket);
  posix_spawn_file_actions_adddup2(&actions, shared, kShared);
  std::string name = kReaderName;
  char* arguments[] = {name.data(), nullptr};
  pid_t process = -1;
  const int code = posix_spawn(&process, "/proc/self/exe", &actions, nullptr, arguments, environment().data());
  posix_spawn_file_actions_destroy(&actions);
  if (code != 0) cannot_start("posix_spawn", code);
  return process;
}

double cpu_seconds(pid_t process) {
  clockid_t clock{};
  timespec used{};
  if (clock_getcpuclockid(process, &clock) != 0 || clock_gettime(clock, &used) != 0) return 0;
  return static_cast<double>(used.tv_sec) + 1e-9 * static_cast<double>(used.tv_nsec);
}

// Descriptors above those the reader gets, so that giving them their numbers does not close another.
int above(int descriptor) {
  const int moved = fcntl(descriptor, F_DUPFD_CLOEXEC, 16);
  const int code = errno;
  ::close(descriptor);
  if (moved < 0) cannot_start("fcntl", code);
  return moved;
}

[[noreturn]] void rethrow(int code, const std::string& line) {
  switch (code) {
    case 2:
      throw UsageError(line);
    case 3:
      throw DataError(line);
    case 4:
      throw ModelError(line);
    case 5:
      throw ResourceError(line);
    default:
      throw ShapeError(line);
  }
}

}  // namespace

std::shared_ptr<ReaderProcess> ReaderProcess::get() {
  static std::mutex mutex;
  static std::shared_ptr<ReaderProcess> kept;  // between files, while it lives
  const std::lock_guard lock(mutex);
  if (kept && !kept->alive_) kept.reset();
  if (!kept) kept = std::make_shared<ReaderProcess>();
  return kept;
}

ReaderProcess::ReaderProcess() { start(); }

void ReaderProcess::start() {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) cannot_start("socketpair", errno);
  OwnDescriptor mine{pair[0]}, theirs{above(pair[1])};
  const int memory = memfd_create("langcell-progress", MFD_CLOEXEC);
  if (memory < 0) cannot_start("memfd_create", errno);
  const OwnDescriptor shared{above(memory)};
  if (ftruncate(shared.number, sizeof(Progress)) != 0) cannot_start("ftruncate", errno);
  void* page = mmap(nullptr, sizeof(Progress), PROT_READ, MAP_SHARED, shared.number, 0);
  if (page == MAP_FAILED) cannot_start("mmap", errno);
  progress_ = static_cast<Progress*>(page);
  const timeval patience{0, 250000};
  setsockopt(mine.number, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  process_ = spawn(theirs.number, shared.number);
  descriptor_ = mine.release();
  socket_.emplace(descriptor_);
  alive_ = true;
}

ReaderProcess::~ReaderProcess() {
  if (descriptor_ >= 0) ::close(descriptor_);  // it leaves then
  if (process_ > 0) {
    int status = 0;
    if (!alive_) kill(process_, SIGKILL);
    while (waitpid(process_, &status, 0) < 0 && errno == EINTR) {}
  }
  if (progress_) munmap(progress_, sizeof(Progress));
}

// status: as waitpid gave it.
void ReaderProcess::lost(const std::string& file, int status) {
  constexpr int kNotLoaded = 127;
  const bool no_memory = WIFEXITED(status) && (WEXITSTATUS(status) == kNotLoaded || WEXITSTATUS(status) == kNoMemory);
  if (no_memory || !memory_suffices())
    throw ResourceError(fmt::format("{}: its reader ended, there is no memory for it; {}", file, kFreeMemory));
  const int signal = WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL ? WTERMSIG(status) : 0;
  const std::string what = signal ? fmt::format("reading it fails with a {}", strsignal(signal)) : "its reader ended without an answer";
  throw ReaderLost(fmt::format("{}: {}; the file is damaged, copy or download it again", file, what),
                   signal ? ReaderLost::How::signalled : ReaderLost::How::left, signal);
}

std::optional<Wire> ReaderProcess::answer_to(const Wire& question, const std::string& file, int descriptor) {
  if (!forgotten_.empty()) {
    Wire forget;
    forget.put(Verb::forget), forget.put(std::exchange(forgotten_, {}));
    if (!socket_->send(forget)) return std::nullopt;
  }
  if (!socket_->send(question, descriptor)) return std::nullopt;
  std::optional<std::uint64_t> moved;
  double busy = 0, silent = 0;
  return socket_->receive([&] {
    const std::uint64_t m = progress_->load(std::memory_order_relaxed);
    if (moved != m) {
      moved = m, busy = cpu_seconds(process_), silent = seconds_now();
    } else if (cpu_seconds(process_) - busy > kBusySeconds || seconds_now() - silent > kSilentSeconds) {
      kill(process_, SIGKILL);
      alive_ = false;
      throw ReaderLost(
          fmt::format("{}: reading it goes round in circles and was ended; the file is damaged, copy or download it again", file),
          ReaderLost::How::circled);
    }
  });
}

Wire ReaderProcess::ask(const Wire& question, const std::string& file, int descriptor) {
  const std::lock_guard lock(mutex_);
  if (!alive_) throw ReaderLost(fmt::format("{}: cannot be read further; its reader has ended", file), ReaderLost::How::earlier);
  std::optional<Wire> answer = answer_to(question, file, descriptor);
  if (!answer) {
    int status = 0;
    kill(process_, SIGKILL);
    while (waitpid(process_, &status, 0) < 0 && errno == EINTR) {}
    process_ = -1, alive_ = false;
    lost(file, status);
  }
  if (const int code = answer->get<int>(); code != 0) rethrow(code, answer->get<std::string>());
  return std::move(*answer);
}

void ReaderProcess::forget(std::uint32_t object) noexcept {
  try {
    const std::lock_guard lock(mutex_);
    forgotten_.push_back(object);
  } catch (...) {  // it stays open until the reader ends
  }
}

}  // namespace lc::h5
