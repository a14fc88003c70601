#include "engine/folder_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <thread>

#include "engine/atomic_file.h"
#include "engine/errors.h"

namespace lc {
namespace {

int opened(const std::filesystem::path& folder) {
  int descriptor = 0;
  do {
    descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  } while (descriptor < 0 && errno == EINTR);
  return descriptor;
}

}  // namespace

bool lock_is_refused(int descriptor, int kind) {
  int locked = 0;
  do {
    locked = ::flock(descriptor, kind | LOCK_NB);
  } while (locked != 0 && errno == EINTR);
  return locked != 0 && errno == EWOULDBLOCK;
}

FolderLock::FolderLock(const std::filesystem::path& folder) : descriptor_(opened(folder)) {
  if (descriptor_ < 0) throw_file_error("open", folder, errno);
  for (int tries = 0; tries < 10; ++tries) {  // an instant of is_held() is waited for
    if (!lock_is_refused(descriptor_, LOCK_EX)) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  ::close(descriptor_);
  throw ResourceError(
      fmt::format("{}: another process is at work in this folder; wait for it to end, or choose another one", folder.string()));
}

FolderLock::~FolderLock() { ::close(descriptor_); }

bool FolderLock::is_held(const std::filesystem::path& folder) {
  const int descriptor = opened(folder);
  if (descriptor < 0) return false;
  const bool held = lock_is_refused(descriptor, LOCK_SH);
  ::close(descriptor);
  return held;
}

}  // namespace lc
