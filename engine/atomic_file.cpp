// Write beside the target, sync, rename, sync the folder. A failed fsync is final: the pages are lost, so it is never tried again.
#include "engine/atomic_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/evp.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/errors.h"

namespace lc {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPartial = ".partial-", kOld = ".old-";  // then the number of the process

const char* advice(int code) {
  switch (code) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return "free some space or write to another disk";
    case EACCES:
    case EPERM:
    case EROFS:
      return "choose a folder you may write to";
    case ENOENT:
      return "create its folder first";
    case ENOTDIR:
      return "a part of the path is a file; choose another path";
    case EISDIR:
      return "it is a folder; give a file name";
    case ENAMETOOLONG:
      return "choose a shorter name";
    case EMFILE:
    case ENFILE:
      return "raise the limit of open files (ulimit -n)";
    default:
      return "check the disk, then run the same command again";
  }
}

[[noreturn]] void fail(const char* verb, const fs::path& path, int code) { throw_file_error(verb, path, code); }

[[noreturn]] void fail_existing(const fs::path& path) {
  throw UsageError(fmt::format("{} exists already; choose another name, or ask for it to be overwritten", path.string()));
}

[[noreturn]] void fail_unreadable(const fs::path& path, int code) {
  throw DataError(fmt::format("cannot read {}: {}; check the path", path.string(), std::strerror(code)));
}

class Descriptor {
 public:
  Descriptor(const fs::path& path, int flags) {
    do {
      value_ = ::open(path.c_str(), flags | O_CLOEXEC);
    } while (value_ < 0 && errno == EINTR);
  }
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int value() const { return value_; }

 private:
  int value_ = -1;
};

// By name, so that it also covers what a library wrote through a descriptor of its own.
void sync_path(const fs::path& path) {
  const Descriptor descriptor(path, O_RDONLY);
  if (descriptor.value() < 0) fail("open", path, errno);
  if (::fsync(descriptor.value()) != 0 && errno != EINVAL && errno != ENOTSUP) fail("sync", path, errno);  // some file systems cannot
}

fs::path folder_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

bool lies_there(const fs::path& path) {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0;
}

bool unsupported(int code) { return code == EINVAL || code == ENOSYS || code == ENOTSUP; }

void rename_to_free_name(const fs::path& from, const fs::path& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return;
  if (unsupported(errno)) {  // NFS and others: a moment's race instead of none
    if (lies_there(to)) fail_existing(to);
    if (::rename(from.c_str(), to.c_str()) == 0) return;
  }
  if (errno == EEXIST) fail_existing(to);
  fail("create", to, errno);
}

// Afterwards the new folder is at `to` and the old one at the path returned.
fs::path swap_folders(const fs::path& from, const fs::path& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) return from;
  if (!unsupported(errno)) fail("replace", to, errno);
  fs::path old = to;
  old += fmt::format("{}{}", kOld, ::getpid());
  if (::rename(to.c_str(), old.c_str()) != 0) fail("move aside", to, errno);
  if (::rename(from.c_str(), to.c_str()) != 0) {
    const int code = errno;
    (void)::rename(old.c_str(), to.c_str());
    fail("replace", to, code);
  }
  return old;
}

fs::path partial_of(fs::path path) { return path += fmt::format("{}{}", kPartial, ::getpid()); }

std::string in_hex(const unsigned char* bytes, size_t count) {
  std::string text;
  for (size_t i = 0; i < count; ++i) text += fmt::format("{:02x}", bytes[i]);
  return text;
}

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    if (!context_ || EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) != 1) throw ResourceError("cannot start SHA-256 (OpenSSL)");
  }
  void add(const void* data, size_t bytes) {
    if (EVP_DigestUpdate(context_.get(), data, bytes) != 1) throw ResourceError("SHA-256 failed (OpenSSL)");
  }
  std::string hex() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned length = 0;
    if (EVP_DigestFinal_ex(context_.get(), digest.data(), &length) != 1) throw ResourceError("SHA-256 failed (OpenSSL)");
    return in_hex(digest.data(), length);
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

// use(data, bytes) for each piece of the file, in order.
template <class Use>
void for_each_piece(const fs::path& path, const Use& use) {
  const Descriptor descriptor(path, O_RDONLY);
  if (descriptor.value() < 0) fail_unreadable(path, errno);
  std::string buffer(size_t{1} << 18, '\0');
  while (true) {
    const ssize_t got = ::read(descriptor.value(), buffer.data(), buffer.size());
    if (got == 0) return;
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_unreadable(path, errno);
    use(buffer.data(), static_cast<size_t>(got));
  }
}

// The process of `model.partial-123`; 0 for any other name, or when it is not of `wanted` (empty: any).
pid_t process_of(const std::string& name, std::string_view wanted) {
  for (const std::string_view mark : {kPartial, kOld}) {
    const std::size_t at = name.rfind(mark);
    if (at == std::string::npos || (!wanted.empty() && std::string_view(name).substr(0, at) != wanted)) continue;
    pid_t pid = 0;
    const char *begin = name.data() + at + mark.size(), *end = name.data() + name.size();
    if (const auto read = std::from_chars(begin, end, pid); read.ec == std::errc{} && read.ptr == end) return pid;
  }
  return 0;
}

// Also when it is dead and nobody has asked for its exit code yet, as after a launcher that was in a hurry.
bool is_gone(pid_t pid) {
  if (pid == ::getpid()) return false;
  if (::kill(pid, 0) != 0) return errno == ESRCH;
  std::string stat;
  std::getline(std::ifstream(fmt::format("/proc/{}/stat", pid)), stat);
  const std::size_t name_end = stat.rfind(") ");
  return name_end != std::string::npos && (stat[name_end + 2] == 'Z' || stat[name_end + 2] == 'X');
}

}  // namespace

void throw_file_error(const char* verb, const fs::path& path, int code) {
  throw ResourceError(fmt::format("cannot {} {}: {}; {}", verb, path.string(), std::strerror(code), advice(code)));
}

AtomicFile::AtomicFile(fs::path path, Existing existing) : path_(std::move(path)), existing_(existing) {
  if (path_.empty()) throw UsageError("an output has an empty name; give a file name");
  std::error_code ignored;
  if (fs::is_symlink(path_, ignored) && fs::exists(path_, ignored)) path_ = fs::canonical(path_);  // the link stays, its target is written
  const fs::file_status found = fs::status(path_, ignored);
  if (fs::is_directory(found) || !path_.has_filename()) fail("write", path_, EISDIR);
  if (fs::exists(found) && existing_ == Existing::refuse) fail_existing(path_);
  if (fs::exists(found) && !fs::is_regular_file(found)) {  // a rename would replace /dev/null itself
    throw ResourceError(fmt::format("cannot write {}: it is a device or pipe, not a file; give a file name", path_.string()));
  }
  partial_ = partial_of(path_);
  do {
    descriptor_ = ::open(partial_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  } while (descriptor_ < 0 && errno == EINTR);
  if (descriptor_ < 0) fail("write", path_, errno);
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!committed_) ::unlink(partial_.c_str());
}

void AtomicFile::write(const void* data, size_t bytes) {
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = ::write(descriptor_, next, bytes);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail("write", path_, written < 0 ? errno : ENOSPC);
    next += written;
    bytes -= static_cast<size_t>(written);
  }
}

void AtomicFile::commit() {
  if (committed_) return;
  sync_path(partial_);
  if (::close(std::exchange(descriptor_, -1)) != 0 && errno != EINTR) fail("write", path_, errno);
  if (existing_ == Existing::refuse) {
    rename_to_free_name(partial_, path_);
  } else if (::rename(partial_.c_str(), path_.c_str()) != 0) {
    fail("replace", path_, errno);
  }
  committed_ = true;
  sync_path(folder_of(path_));
}

void write_file(const fs::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

std::string read_file(const fs::path& path, size_t limit) {
  std::string text;
  for_each_piece(path, [&](const char* data, size_t bytes) {
    if (bytes > limit - text.size()) {
      throw DataError(
          fmt::format("{} is larger than the {} bytes that such a file may have; check that it is the right file", path.string(), limit));
    }
    text.append(data, bytes);
  });
  return text;
}

AtomicFolder::AtomicFolder(fs::path path, Existing existing) : path_(std::move(path)), existing_(existing) {
  if (path_.empty()) throw UsageError("an output folder has an empty name; give a name");
  path_ = path_.lexically_normal();
  if (!path_.has_filename()) path_ = path_.parent_path();  // "model/"
  if (path_ == "." || path_.filename() == "..") path_ = fs::weakly_canonical(path_);
  std::error_code ignored;
  if (fs::is_symlink(path_, ignored) && fs::exists(path_, ignored)) path_ = fs::canonical(path_);
  const fs::file_status found = fs::status(path_, ignored);
  if (fs::exists(found) && existing_ == Existing::refuse) fail_existing(path_);
  if (fs::exists(found) && !fs::is_directory(found)) fail("write", path_, ENOTDIR);
  partial_ = partial_of(path_);
  fs::remove_all(partial_, ignored);  // of a killed process that had the same number
  if (::mkdir(partial_.c_str(), 0777) != 0) fail("write", path_, errno);
}

AtomicFolder::~AtomicFolder() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(partial_, ignored);
}

void AtomicFolder::commit() {
  if (committed_) return;
  std::error_code failure;
  fs::recursive_directory_iterator entry(partial_, failure);
  for (const fs::recursive_directory_iterator end; !failure && entry != end; entry.increment(failure)) {
    if (entry->is_directory() || entry->is_regular_file()) sync_path(entry->path());
  }
  if (failure) fail("read", partial_, failure.value());
  sync_path(partial_);
  fs::path old;
  if (existing_ == Existing::replace && lies_there(path_)) {
    old = swap_folders(partial_, path_);
  } else {
    rename_to_free_name(partial_, path_);
  }
  committed_ = true;
  sync_path(folder_of(path_));
  if (!old.empty()) fs::remove_all(old, failure);
}

void remove_leftovers(const fs::path& folder, std::string_view name) {
  std::error_code failure;
  std::vector<fs::path> gone;
  for (fs::directory_iterator entry(folder, failure), end; entry != end; entry.increment(failure)) {
    const pid_t pid = process_of(entry->path().filename().string(), name);
    if (pid > 0 && is_gone(pid)) gone.push_back(entry->path());
  }
  for (const fs::path& path : gone) {
    const std::string left = path.filename().string();
    const std::size_t old = left.rfind(kOld);  // its process was killed between two renames, where folders cannot be exchanged
    if (old != std::string::npos && !lies_there(path.parent_path() / left.substr(0, old)))
      fs::rename(path, path.parent_path() / left.substr(0, old), failure);
    else
      fs::remove_all(path, failure);
  }
}

std::string sha256_of_file(const fs::path& path) {
  Sha256 hash;
  for_each_piece(path, [&](const char* data, size_t bytes) { hash.add(data, bytes); });
  return hash.hex();
}

std::string sha256_of(std::string_view bytes) {
  Sha256 hash;
  hash.add(bytes.data(), bytes.size());
  return hash.hex();
}

}  // namespace lc
