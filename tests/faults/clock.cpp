// libclock.so, for LD_PRELOAD: the system's clock jumps by up to a day, forward or back, at every fourth call on average, drawn by chance
// from CLOCK_SEED. The clock that only counts on (CLOCK_MONOTONIC) is left alone, as by an administrator or a time server.
// CLOCK_LOG  gets one line per process that asked: how often it asked, how often the clock had jumped
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace {

std::atomic<std::uint64_t> asked = 0, jumped = 0;
std::atomic<time_t> offset = 0;

std::uint64_t chance(std::uint64_t number) {  // splitmix64
  static const std::uint64_t seed = std::getenv("CLOCK_SEED") ? std::strtoull(std::getenv("CLOCK_SEED"), nullptr, 10) : 0;
  std::uint64_t x = (seed << 32) + number * 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

time_t jump() {
  const std::uint64_t r = chance(++asked);
  if (r % 4 == 0) {
    constexpr time_t kDay = 86400;
    offset = static_cast<time_t>(r / 4 % (2 * kDay + 1)) - kDay;
    ++jumped;
  }
  return offset;
}

template <class Function>
Function real(const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

[[gnu::destructor]] void tell() {
  const char* path = std::getenv("CLOCK_LOG");
  const int log = path && asked > 0 ? ::open(path, O_WRONLY | O_CREAT | O_APPEND, 0666) : -1;
  if (log < 0) return;
  ::dprintf(log, "%lu %lu\n", static_cast<unsigned long>(asked), static_cast<unsigned long>(jumped));
  ::close(log);
}

}  // namespace

extern "C" {

int clock_gettime(clockid_t clock, struct timespec* now) {
  static const auto next = real<int (*)(clockid_t, struct timespec*)>("clock_gettime");
  const int code = next(clock, now);
  if (code == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += jump();
  return code;
}

int gettimeofday(struct timeval* now, void*) {
  timespec exact{};
  const int code = ::clock_gettime(CLOCK_REALTIME, &exact);
  now->tv_sec = exact.tv_sec, now->tv_usec = exact.tv_nsec / 1000;
  return code;
}

time_t time(time_t* out) {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}

}  // extern "C"
