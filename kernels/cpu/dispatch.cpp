#include "kernels/cpu/dispatch.h"

#include <pthread.h>

#include <atomic>
#include <latch>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "kernels/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/dispatch.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace lc::kernels {
namespace HWY_NAMESPACE {
const char* target_name() { return hwy::TargetName(HWY_TARGET); }
}  // namespace HWY_NAMESPACE
}  // namespace lc::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lc::kernels {
HWY_EXPORT(target_name);

std::string instruction_set() { return HWY_DYNAMIC_DISPATCH(target_name)(); }

namespace {
// AMX-TILE and AMX-BF16 in the processor, and the kernel's permission to keep tile data (Linux: arch_prctl, asked once per process).
bool find_amx() {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24;
  if ((d & kBf16) == 0 || (d & kTile) == 0) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
}  // namespace

// The C library loads what it needs to end a thread when the first one ends so, and aborts when it cannot: better now than without memory.
static bool end_a_thread() {
  pthread_t thread;
  const auto ends = [](void*) -> void* { pthread_exit(nullptr); };
  return pthread_create(&thread, nullptr, ends, nullptr) == 0 && pthread_join(thread, nullptr) == 0;
}

// OpenMP gets the stacks that these threads leave behind.
bool start_threads() {
  if (!end_a_thread()) return false;
  std::latch all_stand(1);
  std::vector<std::thread> threads;
  bool started = true;
  try {
    threads.reserve(static_cast<std::size_t>(omp_get_max_threads()));
    for (int i = 1; i < omp_get_max_threads(); ++i) threads.emplace_back([&all_stand] { all_stand.wait(); });
  } catch (const std::system_error&) {
    started = false;
  }
  all_stand.count_down();
  for (std::thread& thread : threads) thread.join();
  std::atomic<int> there = 0;
  if (started) {
#pragma omp parallel
    ++there;
  }
  return started;
}

bool cpu_has_amx() {
  static const bool found = find_amx();
  return found;
}

}  // namespace lc::kernels
#endif
