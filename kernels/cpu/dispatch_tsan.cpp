// For builds under ThreadSanitizer alone. GCC's OpenMP is not instrumented, so each of its regions would look like a race: here its two
// doors are ours, and say what they guarantee. What comes before a region has happened before its work, its work before what follows, and
// one critical section before the next of that name. Between the threads of one region nothing is ordered: races there are found.
#if defined(__SANITIZE_THREAD__)
#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>

namespace {

struct Region {
  void (*work)(void*);
  void* data;
  char begun = 0, done = 0;  // their addresses are what is acquired and released
};

void run(void* region) {
  auto& r = *static_cast<Region*>(region);
  __tsan_acquire(&r.begun);
  r.work(r.data);
  __tsan_release(&r.done);
}

template <class F>
F real(const char* name) {
  return reinterpret_cast<F>(::dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" {

void GOMP_parallel(void (*work)(void*), void* data, unsigned threads, unsigned flags) {
  static const auto next = real<void (*)(void (*)(void*), void*, unsigned, unsigned)>("GOMP_parallel");
  Region region{work, data};
  __tsan_release(&region.begun);
  next(run, &region, threads, flags);
  __tsan_acquire(&region.done);
}

void GOMP_critical_name_start(void** name) {
  static const auto next = real<void (*)(void**)>("GOMP_critical_name_start");
  next(name);
  __tsan_acquire(name);
}

void GOMP_critical_name_end(void** name) {
  static const auto next = real<void (*)(void**)>("GOMP_critical_name_end");
  __tsan_release(name);
  next(name);
}

}  // extern "C"
#endif
