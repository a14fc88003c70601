#include "engine/hdf5/sandbox.h"

#include <fmt/format.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <initializer_list>
#include <vector>

#include "engine/errors.h"

namespace lc::h5 {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif
#if defined(__x86_64__)
constexpr std::uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr std::uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#endif

constexpr rlim_t kMemory = rlim_t{448} << 20;  // of data; with the program itself below 512 MiB resident

sock_filter statement(std::uint32_t code, std::uint32_t value) { return {static_cast<std::uint16_t>(code), 0, 0, value}; }
sock_filter unless_equal(std::uint32_t value, std::uint8_t skip) { return {BPF_JMP | BPF_JEQ | BPF_K, 0, skip, value}; }
sock_filter answer(std::uint32_t action) { return statement(BPF_RET | BPF_K, action); }
sock_filter load(size_t offset) { return statement(BPF_LD | BPF_W | BPF_ABS, static_cast<std::uint32_t>(offset)); }
constexpr size_t argument(int i) { return offsetof(seccomp_data, args) + 8 * static_cast<size_t>(i); }  // low half, little-endian

class Filter {
 public:
  Filter() {
    add({load(offsetof(seccomp_data, arch)), unless_equal(kArchitecture, 0), answer(SECCOMP_RET_KILL_PROCESS)});
    program_[1].jt = 1, program_[1].jf = 0;
    number();
  }
  void allow(std::initializer_list<int> calls) {
    for (const int call : calls) add({unless_equal(static_cast<std::uint32_t>(call), 1), answer(SECCOMP_RET_ALLOW)});
  }
  void refuse(std::initializer_list<int> calls) {  // the caller goes on without
    for (const int call : calls) add({unless_equal(static_cast<std::uint32_t>(call), 1), answer(SECCOMP_RET_ERRNO | EACCES)});
  }
  void allow_if(int call, int index, std::uint32_t value) {
    add({unless_equal(static_cast<std::uint32_t>(call), 4), load(argument(index)), unless_equal(value, 1), answer(SECCOMP_RET_ALLOW),
         answer(SECCOMP_RET_KILL_PROCESS)});
  }
  void allow_without(int call, int index, std::uint32_t bits) {
    add({unless_equal(static_cast<std::uint32_t>(call), 5), load(argument(index)), statement(BPF_ALU | BPF_AND | BPF_K, bits),
         unless_equal(0, 1), answer(SECCOMP_RET_ALLOW), answer(SECCOMP_RET_KILL_PROCESS)});
  }
  void install() {
    add({answer(SECCOMP_RET_KILL_PROCESS)});
    const sock_fprog program{static_cast<std::uint16_t>(program_.size()), program_.data()};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
      throw ResourceError(
          fmt::format("the reader of files cannot be confined: {}; the system's kernel has no seccomp", std::strerror(errno)));
  }

 private:
  void add(std::initializer_list<sock_filter> more) { program_.insert(program_.end(), more); }
  void number() { add({load(offsetof(seccomp_data, nr))}); }
  std::vector<sock_filter> program_;
};

}  // namespace

bool memory_suffices() {
  void* room = mmap(nullptr, kMemory / 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return room != MAP_FAILED && munmap(room, kMemory / 2) == 0;
}

void enter_sandbox(int socket) {
  if (kSanitized) return;
  const rlimit memory{kMemory, kMemory}, none{0, 0};
  setrlimit(RLIMIT_DATA, &memory);
  setrlimit(RLIMIT_CORE, &none);
  Filter filter;
  filter.allow({SYS_read,         SYS_pread64,   SYS_pwrite64,    SYS_lseek,           SYS_ftruncate,      SYS_fsync,
                SYS_fdatasync,    SYS_close,     SYS_brk,         SYS_munmap,          SYS_mremap,         SYS_madvise,
                SYS_futex,        SYS_exit,      SYS_exit_group,  SYS_rt_sigreturn,    SYS_rt_sigprocmask, SYS_clock_gettime,
                SYS_gettimeofday, SYS_getrandom, SYS_sched_yield, SYS_clock_nanosleep, SYS_nanosleep,      SYS_getpid,
                SYS_gettid,       SYS_recvmsg});
  filter.allow_if(SYS_sendmsg, 0, static_cast<std::uint32_t>(socket));
  filter.allow_if(SYS_tgkill, 0, static_cast<std::uint32_t>(getpid()));  // abort()
  filter.allow_without(SYS_mmap, 2, PROT_EXEC);
  filter.allow_without(SYS_mprotect, 2, PROT_EXEC);
  filter.refuse({SYS_writev, SYS_openat, SYS_newfstatat, SYS_readlinkat, SYS_faccessat, SYS_fstat, SYS_fcntl, SYS_ioctl, SYS_getcwd,
                 SYS_uname, SYS_sysinfo});
#if defined(__x86_64__)
  filter.allow({SYS_time});
  filter.refuse({SYS_open, SYS_stat, SYS_lstat, SYS_access, SYS_readlink});
#endif
  filter.install();
}

}  // namespace lc::h5
