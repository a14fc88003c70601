#include "engine/spool.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "engine/errors.h"
#include "engine/folder_lock.h"

namespace lc {
namespace {

namespace fs = std::filesystem;

int open_or_fail(const fs::path& path, int flags) {
  int descriptor = -1;
  do {
    descriptor = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
  } while (descriptor < 0 && errno == EINTR);
  if (descriptor < 0) throw_file_error("open", path, errno);
  return descriptor;
}

}  // namespace

Spool::Spool(const fs::path& output, const std::string& identity, std::vector<SpoolPart> parts, Existing existing)
    : folder_(output.string() + ".partial"), parts_(std::move(parts)) {
  std::error_code error;
  fs::create_directory(folder_, error);
  if (error) throw_file_error("create", folder_, error.value());
  const fs::path about = folder_ / "about";
  lock_ = open_or_fail(about, O_RDWR | O_CREAT);
  if (lock_is_refused(lock_, LOCK_EX)) {
    ::close(lock_);
    throw UsageError(fmt::format("{}: another process is writing this output; wait for it, or choose another --out", folder_.string()));
  }
  const fs::path beside = output.has_parent_path() ? output.parent_path() : fs::path(".");
  remove_leftovers(beside, output.filename().string());  // ours alone, now that we hold the lock
  std::string there(identity.size() + 1, '\0');
  const ssize_t got = ::pread(lock_, there.data(), there.size(), 0);
  there.resize(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  if (there != identity) {
    if (!there.empty() && existing == Existing::refuse) {
      ::close(lock_);
      throw UsageError(
          fmt::format("{}: holds what an interrupted run with another input, model, texts or options left; remove it, add --overwrite, "
                      "or choose another --out",
                      folder_.string()));
    }
    for (std::size_t i = 0; i < parts_.size(); ++i) fs::remove(path_of(i), error);
    if (::ftruncate(lock_, 0) != 0 || ::pwrite(lock_, identity.data(), identity.size(), 0) != std::ssize(identity) || ::fsync(lock_) != 0) {
      const int code = errno;
      remove();
      ::close(lock_);
      throw_file_error("write", about, code);
    }
  }
  open_parts();
}

void Spool::open_parts() {
  done_ = ~std::uint64_t{0};
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    files_.push_back({open_or_fail(path_of(i), O_RDWR | O_CREAT), 0});
    struct stat s {};
    if (::fstat(files_[i].descriptor, &s) != 0) throw_file_error("read", path_of(i), errno);
    done_ = std::min(done_, static_cast<std::uint64_t>(s.st_size) / parts_[i].bytes);
  }
}

Spool::~Spool() {
  if (!removed_ && done_ == 0) remove();
  for (const File& f : files_) ::close(f.descriptor);
  if (lock_ >= 0) ::close(lock_);
}

void Spool::begin_at(std::uint64_t cells) {
  done_ = std::min(done_, cells);
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    if (::ftruncate(files_[i].descriptor, static_cast<off_t>(done_ * parts_[i].bytes)) != 0) throw_file_error("cut", path_of(i), errno);
    files_[i].cells = done_;
  }
}

void Spool::append(std::size_t part, const void* records, std::uint64_t cells) {
  File& f = files_[part];
  const auto* data = static_cast<const char*>(records);
  for (std::uint64_t at = 0, bytes = cells * parts_[part].bytes; at < bytes;) {
    const ssize_t put = ::pwrite(f.descriptor, data + at, bytes - at, static_cast<off_t>(f.cells * parts_[part].bytes + at));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) throw_file_error("write", path_of(part), put == 0 ? ENOSPC : errno);
    at += static_cast<std::uint64_t>(put);
  }
  f.cells += cells;
  done_ = f.cells;
  for (const File& other : files_) done_ = std::min(done_, other.cells);
}

void Spool::sync() {
  for (std::size_t i = 0; i < files_.size(); ++i)
    if (::fdatasync(files_[i].descriptor) != 0) throw_file_error("write", path_of(i), errno);
}

void Spool::read(std::size_t part, std::uint64_t begin, std::uint64_t end, void* records) const {
  auto* const data = static_cast<char*>(records);
  for (std::uint64_t at = 0, bytes = (end - begin) * parts_[part].bytes; at < bytes;) {
    const ssize_t got = ::pread(files_[part].descriptor, data + at, bytes - at, static_cast<off_t>(begin * parts_[part].bytes + at));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) throw_file_error("read", path_of(part), got == 0 ? EIO : errno);
    at += static_cast<std::uint64_t>(got);
  }
}

void Spool::remove() {
  std::error_code ignored;
  for (std::size_t i = 0; i < parts_.size(); ++i) fs::remove(path_of(i), ignored);
  fs::remove(folder_ / "about", ignored);
  fs::remove(folder_, ignored);  // only when nothing else is in it
  removed_ = true;
}

}  // namespace lc
