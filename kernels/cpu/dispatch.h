// The one thread pool of the CPU kernels (OpenMP, shared with oneDNN) and what the machine offers.
// Work is cut into chunks whose borders depend on the sizes alone, never on the number of threads.
#pragma once
#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <string>

namespace lc::kernels {

constexpr std::int64_t chunks_of(std::int64_t n, std::int64_t chunk) { return (n + chunk - 1) / chunk; }

// f(begin, end, chunk index) for every chunk of [0, n); chunks run in any order, on any thread. An exception must not leave a thread of
// OpenMP: the first one is thrown again when all chunks are done.
template <class F>
void parallel_for(std::int64_t n, std::int64_t chunk, F&& f) {
  const std::int64_t count = chunks_of(n, chunk);
  if (count <= 1 || omp_in_parallel()) {
    for (std::int64_t c = 0; c < count; ++c) f(c * chunk, std::min(n, (c + 1) * chunk), c);
    return;
  }
  std::exception_ptr failed;
#pragma omp parallel for schedule(dynamic)
  for (std::int64_t c = 0; c < count; ++c) {
    try {
      f(c * chunk, std::min(n, (c + 1) * chunk), c);
    } catch (...) {
#pragma omp critical(lc_parallel_for)
      if (!failed) failed = std::current_exception();
    }
  }
  if (failed) std::rethrow_exception(failed);
}

inline int thread() { return omp_get_thread_num(); }
inline int threads() { return omp_in_parallel() ? 1 : omp_get_max_threads(); }

// Starts the threads of the pool, as many as omp_get_max_threads. False when the machine does not give so many: OpenMP, asked for them
// later, would end the process.
bool start_threads();

bool cpu_has_amx();             // bf16 tile products
std::string instruction_set();  // the target Highway chose, e.g. "AVX3"

struct MachinePeak {
  double gflops = 0, gbytes = 0;  // float FMA loop; memcpy, bytes read + written; over all threads
};
MachinePeak measure_peak();  // about half a second

}  // namespace lc::kernels
