// libfail.so, for LD_PRELOAD: counts the calls that touch files below FAIL_UNDER and lets the FAIL_AT-th of them fail.
// FAIL_CALLS  names, by commas (default: every one below but malloc)   FAIL_HOW  an errno's number, `kill`, `short` or `late` (5 s)
// FAIL_IN     `reader`: only calls of the process that reads files count (engine/hdf5/reader_process.h)
// FAIL_LOG    gets one line per process that ends: calls counted, files below FAIL_UNDER still open, names of the calls
// malloc      counts from the first open below FAIL_UNDER on: what comes before is start-up
// The reader may not ask for the path of a descriptor, nor write to one but at a place: it is told the path with the descriptor, so that
// one it was handed counts when the message names a file below FAIL_UNDER; and the log is opened when the process starts.
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

extern "C" void* __libc_malloc(size_t);
extern "C" void* __libc_calloc(size_t, size_t);
extern "C" void* __libc_realloc(void*, size_t);
extern "C" void* __libc_memalign(size_t, size_t);

namespace {

enum class How { nothing, error, kill, cut, late };

struct Plan {
  const char* under = std::getenv("FAIL_UNDER");
  size_t length = under ? std::strlen(under) : 0;
  const char* calls = std::getenv("FAIL_CALLS");
  const char* how_text = std::getenv("FAIL_HOW");
  const char* in = std::getenv("FAIL_IN");
  bool reader = std::strcmp(program_invocation_name, "langcell-reader") == 0;
  bool counts = !in || (std::strcmp(in, "reader") == 0) == reader;
  long at = std::getenv("FAIL_AT") ? std::atol(std::getenv("FAIL_AT")) : 0;
  How how = !how_text                         ? How::nothing
            : !std::strcmp(how_text, "kill")  ? How::kill
            : !std::strcmp(how_text, "short") ? How::cut
            : !std::strcmp(how_text, "late")  ? How::late
                                              : How::error;
  int code = how == How::error ? std::atoi(how_text) : EIO;
};

const Plan& plan() {
  static const Plan the_plan;
  return the_plan;
}

std::atomic<long> counted = 0;
std::atomic<bool> started = false;
constexpr int kHanded = 1024;
std::atomic<bool> handed[kHanded];  // descriptors that came with the name of a file below FAIL_UNDER
int log_descriptor = -1;
constexpr size_t kNames = size_t{1} << 16;
char names[kNames];
std::atomic<size_t> names_end = 0;

bool named(const char* call) {
  const char* list = plan().calls;
  if (!list) return std::strcmp(call, "malloc") != 0;
  const size_t n = std::strlen(call);
  for (const char* at = list; (at = std::strstr(at, call)); at += n) {
    if ((at == list || at[-1] == ',') && (at[n] == ',' || at[n] == '\0')) return true;
  }
  return false;
}

// Counts the call; true when this is the one. A kill does not return.
bool strikes(const char* call) {
  if (!plan().counts || !named(call)) return false;
  const long number = ++counted;
  if (log_descriptor >= 0) {
    const size_t n = std::strlen(call), begin = names_end.fetch_add(n + 1);
    if (begin + n + 1 < kNames) std::memcpy(names + begin, call, n), names[begin + n] = ' ';
  }
  if (number != plan().at || plan().how == How::nothing) return false;
  if (plan().how == How::kill) {
    ::raise(SIGKILL);
  }
  if (plan().how == How::late) {
    ::sleep(5);
    return false;
  }
  return true;
}

bool below(const char* path) { return path && plan().under && std::strncmp(path, plan().under, plan().length) == 0; }

bool below(int descriptor) {
  if (!plan().under || descriptor < 0 || descriptor == log_descriptor) return false;
  if (plan().reader) return descriptor < kHanded && handed[descriptor];
  char link[64], path[4096];
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  const ssize_t n = ::readlink(link, path, sizeof path - 1);
  if (n <= 0) return false;
  path[n] = '\0';
  return below(path);
}

bool below(int folder, const char* path) { return path && path[0] != '/' && folder != AT_FDCWD ? below(folder) : below(path); }

template <class Function>
Function real(const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

int refuse() {
  errno = plan().code;
  return -1;
}

// Half of the bytes, at least one: what a full pipe, a signal or a quota does to a write.
size_t half(size_t bytes) { return bytes > 1 ? bytes / 2 : bytes; }

[[gnu::constructor]] void open_log() {
  const char* path = std::getenv("FAIL_LOG");
  if (path) log_descriptor = real<int (*)(const char*, int, ...)>("open")(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
}

[[gnu::destructor]] void tell() {
  if (log_descriptor < 0) return;
  static char line[kNames + 64];
  int left = 0;
  for (int d = 3; d < kHanded; ++d) left += below(d);
  const int n = std::snprintf(line, sizeof line, "%ld %d %s\n", counted.load(), left, names);
  real<ssize_t (*)(int, const void*, size_t, off_t)>("pwrite")(log_descriptor, line, static_cast<size_t>(n), 0);  // at the end: O_APPEND
}

int opened(const char* path, int flags, mode_t mode) {
  static const auto next = real<int (*)(const char*, int, ...)>("open");
  if (below(path)) {
    started = true;
    if (strikes("open")) return refuse();
  }
  return next(path, flags, mode);
}

mode_t mode_of(int flags, va_list arguments) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0; }

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return opened(path, flags, mode);
}

int open64(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return opened(path, flags | O_LARGEFILE, mode);
}

int openat(int folder, const char* path, int flags, ...) {
  static const auto next = real<int (*)(int, const char*, int, ...)>("openat");
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  if (below(folder, path) && strikes("open")) return refuse();
  return next(folder, path, flags, mode);
}

FILE* fopen64(const char* path, const char* mode) {
  static const auto next = real<FILE* (*)(const char*, const char*)>("fopen64");
  if (below(path) && strikes("open")) return errno = plan().code, nullptr;
  return next(path, mode);
}

FILE* fopen(const char* path, const char* mode) {
  static const auto next = real<FILE* (*)(const char*, const char*)>("fopen");
  if (below(path) && strikes("open")) return errno = plan().code, nullptr;
  return next(path, mode);
}

ssize_t write(int descriptor, const void* data, size_t bytes) {
  static const auto next = real<ssize_t (*)(int, const void*, size_t)>("write");
  if (below(descriptor) && strikes("write")) {
    if (plan().how != How::cut) return refuse();
    return next(descriptor, data, half(bytes));
  }
  return next(descriptor, data, bytes);
}

ssize_t writev(int descriptor, const struct iovec* parts, int count) {
  static const auto next = real<ssize_t (*)(int, const struct iovec*, int)>("writev");
  if (below(descriptor) && strikes("write")) {
    if (plan().how != How::cut) return refuse();
    return next(descriptor, parts, count > 1 ? count / 2 : count);
  }
  return next(descriptor, parts, count);
}

ssize_t pwrite(int descriptor, const void* data, size_t bytes, off_t at) {
  static const auto next = real<ssize_t (*)(int, const void*, size_t, off_t)>("pwrite");
  if (below(descriptor) && strikes("pwrite")) {
    if (plan().how != How::cut) return refuse();
    return next(descriptor, data, half(bytes), at);
  }
  return next(descriptor, data, bytes, at);
}

ssize_t pwrite64(int descriptor, const void* data, size_t bytes, off64_t at) { return pwrite(descriptor, data, bytes, at); }

ssize_t read(int descriptor, void* data, size_t bytes) {
  static const auto next = real<ssize_t (*)(int, void*, size_t)>("read");
  if (below(descriptor) && strikes("read")) {
    if (plan().how != How::cut) return refuse();
    return next(descriptor, data, half(bytes));
  }
  return next(descriptor, data, bytes);
}

ssize_t pread(int descriptor, void* data, size_t bytes, off_t at) {
  static const auto next = real<ssize_t (*)(int, void*, size_t, off_t)>("pread");
  if (below(descriptor) && strikes("read")) {
    if (plan().how != How::cut) return refuse();
    return next(descriptor, data, half(bytes), at);
  }
  return next(descriptor, data, bytes, at);
}

ssize_t pread64(int descriptor, void* data, size_t bytes, off64_t at) { return pread(descriptor, data, bytes, at); }

// Descriptors come to the reader with a message; whether theirs is one that counts, the message says.
ssize_t recvmsg(int socket, struct msghdr* message, int flags) {
  static const auto next = real<ssize_t (*)(int, struct msghdr*, int)>("recvmsg");
  const ssize_t got = next(socket, message, flags);
  const cmsghdr* attached = got > 0 && plan().reader && plan().under ? CMSG_FIRSTHDR(message) : nullptr;
  if (!attached || attached->cmsg_type != SCM_RIGHTS) return got;
  int descriptor = -1;
  std::memcpy(&descriptor, CMSG_DATA(attached), sizeof descriptor);
  auto left = static_cast<size_t>(got);
  for (size_t i = 0; i < message->msg_iovlen && left > 0; ++i) {
    const iovec& part = message->msg_iov[i];
    const size_t n = part.iov_len < left ? part.iov_len : left;
    if (::memmem(part.iov_base, n, plan().under, plan().length) && descriptor >= 0 && descriptor < kHanded)
      handed[descriptor] = started = true;
    left -= n;
  }
  return got;
}

int close(int descriptor) {
  static const auto next = real<int (*)(int)>("close");
  const bool strikes_here = below(descriptor) && strikes("close");
  if (descriptor >= 0 && descriptor < kHanded) handed[descriptor] = false;
  const int closed = next(descriptor);  // Linux frees the number whatever it answers
  return strikes_here ? refuse() : closed;
}

int fsync(int descriptor) {
  static const auto next = real<int (*)(int)>("fsync");
  return below(descriptor) && strikes("fsync") ? refuse() : next(descriptor);
}

int fdatasync(int descriptor) {
  static const auto next = real<int (*)(int)>("fdatasync");
  return below(descriptor) && strikes("fsync") ? refuse() : next(descriptor);
}

int ftruncate(int descriptor, off_t bytes) {
  static const auto next = real<int (*)(int, off_t)>("ftruncate");
  return below(descriptor) && strikes("ftruncate") ? refuse() : next(descriptor, bytes);
}

int ftruncate64(int descriptor, off64_t bytes) { return ftruncate(descriptor, bytes); }

int rename(const char* from, const char* to) {
  static const auto next = real<int (*)(const char*, const char*)>("rename");
  return below(to) && strikes("rename") ? refuse() : next(from, to);
}

int renameat2(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) {
  static const auto next = real<int (*)(int, const char*, int, const char*, unsigned)>("renameat2");
  return below(to_folder, to) && strikes("rename") ? refuse() : next(from_folder, from, to_folder, to, flags);
}

int mkdir(const char* path, mode_t mode) {
  static const auto next = real<int (*)(const char*, mode_t)>("mkdir");
  return below(path) && strikes("mkdir") ? refuse() : next(path, mode);
}

int unlink(const char* path) {
  static const auto next = real<int (*)(const char*)>("unlink");
  return below(path) && strikes("unlink") ? refuse() : next(path);
}

int unlinkat(int folder, const char* path, int flags) {
  static const auto next = real<int (*)(int, const char*, int)>("unlinkat");
  return below(folder, path) && strikes("unlink") ? refuse() : next(folder, path, flags);
}

int remove(const char* path) {
  static const auto next = real<int (*)(const char*)>("remove");
  return below(path) && strikes("unlink") ? refuse() : next(path);
}

void* malloc(size_t bytes) {
  if (started && strikes("malloc")) return errno = ENOMEM, nullptr;
  return __libc_malloc(bytes);
}

void* calloc(size_t count, size_t bytes) {
  if (started && strikes("malloc")) return errno = ENOMEM, nullptr;
  return __libc_calloc(count, bytes);
}

void* realloc(void* old, size_t bytes) {
  if (started && strikes("malloc")) return errno = ENOMEM, nullptr;
  return __libc_realloc(old, bytes);
}

int posix_memalign(void** out, size_t alignment, size_t bytes) {
  if (started && strikes("malloc")) return ENOMEM;
  *out = __libc_memalign(alignment, bytes);
  return *out ? 0 : ENOMEM;
}

}  // extern "C"
