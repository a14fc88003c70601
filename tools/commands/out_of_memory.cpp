#include "tools/commands/out_of_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <csignal>
#include <cstddef>
#include <initializer_list>
#include <string_view>

namespace lc {
namespace {

constexpr std::string_view kLine =
    "langcell: error: out of memory, where a library cannot go on without; use a smaller batch_size or fewer threads, free memory or raise "
    "its limit (ulimit -v)\n";

// Only what a handler may call. A signal that is explained otherwise comes again, to its default.
void explain(int) {
  constexpr std::size_t kWanted = std::size_t{64} << 20;
  if (void* room = mmap(nullptr, kWanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0); room != MAP_FAILED) {
    munmap(room, kWanted);
    return;
  }
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, kLine.data(), kLine.size());
  _exit(5);
}

}  // namespace

void explain_crashes_without_memory() {
  struct sigaction action {};
  action.sa_handler = explain;
  action.sa_flags = SA_RESETHAND | SA_ONSTACK;
  for (const int signal : {SIGSEGV, SIGABRT}) sigaction(signal, &action, nullptr);
}

}  // namespace lc
