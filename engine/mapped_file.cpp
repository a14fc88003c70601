#include "engine/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <mutex>
#include <string>

#include "engine/errors.h"

namespace lc {

struct MappedPlace {
  std::atomic<std::uintptr_t> begin = 0, end = 0;  // 0: nothing is mapped here now
  std::string line;                                // what to say when it cannot be read
  MappedPlace* next = nullptr;
};

namespace {

std::mutex places_mutex;
std::atomic<MappedPlace*> first_place = nullptr;  // never freed, taken again: the handler may walk the list at any time

void cannot_be_read(int number, siginfo_t* what, void*) {
  const auto at = reinterpret_cast<std::uintptr_t>(what->si_addr);
  for (const MappedPlace* p = first_place; p; p = p->next) {
    if (at < p->begin || at >= p->end) continue;
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, p->line.data(), p->line.size());
    ::_exit(DataError("").exit_code());
  }
  std::signal(number, SIG_DFL);  // not one of ours: it comes again
}

MappedPlace* take_place(const std::byte* data, std::uint64_t size, const std::filesystem::path& path) {
  const std::lock_guard lock(places_mutex);
  MappedPlace* place = first_place;
  while (place && place->begin != 0) place = place->next;
  const bool fresh = !place;
  if (fresh) place = new MappedPlace;
  place->line = fmt::format(
      "langcell: error: {}: a part cannot be read any more: the file was cut short, or its disk failed; restore it, then start again\n",
      path.string());
  place->end = reinterpret_cast<std::uintptr_t>(data) + size;
  place->begin = reinterpret_cast<std::uintptr_t>(data);
  if (fresh) place->next = first_place, first_place = place;
  struct sigaction action {};
  action.sa_sigaction = cannot_be_read, action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGBUS, &action, nullptr);  // each time: MPI sets one of its own
  return place;
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path), descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
  struct stat status {};
  if (descriptor_ < 0 || ::fstat(descriptor_, &status) != 0) {
    const int code = errno;
    if (descriptor_ >= 0) ::close(descriptor_);
    throw DataError(fmt::format("{}: cannot be read: {}", path.string(), std::strerror(code)));
  }
  size_ = static_cast<std::uint64_t>(status.st_size);
  void* data = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, descriptor_, 0);
  if (data == MAP_FAILED) {
    const int code = errno;
    ::close(descriptor_);
    throw ResourceError(fmt::format("{}: cannot be mapped into memory: {}", path.string(), std::strerror(code)));
  }
  data_ = static_cast<std::byte*>(data);
  ::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_RANDOM);  // copies are asked for all over the file: reading ahead is wasted
  place_ = take_place(data_, size_, path);
}

MappedFile::~MappedFile() {
  const std::lock_guard lock(places_mutex);
  place_->begin = place_->end = 0;
  ::munmap(data_, size_);
  ::close(descriptor_);
}

void MappedFile::release() const { ::madvise(data_, size_, MADV_DONTNEED); }

void MappedFile::copy(std::uint64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t got = ::pread(descriptor_, out.data(), out.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw DataError(fmt::format("{}: cannot be read any more: {}", path_.string(), std::strerror(errno)));
    if (got == 0) throw DataError(fmt::format("{}: was cut short while it was in use; restore it, then start again", path_.string()));
    offset += static_cast<std::uint64_t>(got), out = out.subspan(static_cast<std::size_t>(got));
  }
}

void MappedFile::copy_soon(std::uint64_t offset, std::uint64_t bytes) const {
  ::posix_fadvise(descriptor_, static_cast<off_t>(offset), static_cast<off_t>(bytes), POSIX_FADV_WILLNEED);
}

}  // namespace lc
