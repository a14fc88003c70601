#include "engine/folder_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

#include "engine/atomic_file.h"
#include "engine/errors.h"

namespace lc {

FolderLock::FolderLock(const std::filesystem::path& folder) {
  do {
    descriptor_ = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  } while (descriptor_ < 0 && errno == EINTR);
  if (descriptor_ < 0) throw_file_error("open", folder, errno);
  int locked = 0;
  do {
    locked = ::flock(descriptor_, LOCK_EX | LOCK_NB);
  } while (locked != 0 && errno == EINTR);
  if (locked == 0 || errno != EWOULDBLOCK) return;
  ::close(descriptor_);
  throw ResourceError(
      fmt::format("{}: another process is at work in this folder; wait for it to end, or choose another one", folder.string()));
}

FolderLock::~FolderLock() { ::close(descriptor_); }

}  // namespace lc
