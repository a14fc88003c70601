// One process at a time in a folder. The lock is the kernel's: it ends with the process, however that ends, and leaves no file behind.
#pragma once
#include <filesystem>

namespace lc {

bool lock_is_refused(int descriptor, int kind);  // of flock: another process has it. A file system without locks refuses nobody

class FolderLock {  // ResourceError: another process holds it, or the folder cannot be opened. A file system without locks grants it.
 public:
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;
  // Whether a process holds it now. Looking takes a shared lock for an instant, for which the constructor waits; nothing is written.
  static bool is_held(const std::filesystem::path& folder);

 private:
  int descriptor_ = -1;
};

}  // namespace lc
