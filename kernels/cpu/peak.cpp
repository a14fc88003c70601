// What this machine can do at most, measured when asked: the denominator of every "share of peak".
#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/simd.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/peak.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace lc::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// `rounds` times twelve independent chains of FMAs; returns operations done. The sum keeps the compiler from dropping them.
double fma_loop(std::int64_t rounds, float* sink) {
  const hn::ScalableTag<float> d;
  const auto a = hn::Set(d, 0.999f + *sink), b = hn::Set(d, 1e-3f);
  const auto start = [&](float x) { return hn::Set(d, x + *sink); };  // no two chains alike, or the compiler runs one for both
  auto c0 = start(0.1f), c1 = start(0.2f), c2 = start(0.3f), c3 = start(0.4f), c4 = start(0.5f), c5 = start(0.6f), c6 = start(0.7f),
       c7 = start(0.8f), c8 = start(0.9f);
  auto c9 = start(1.1f), c10 = start(1.2f), c11 = start(1.3f);
  for (std::int64_t i = 0; i < rounds; ++i) {
    c0 = hn::MulAdd(c0, a, b), c1 = hn::MulAdd(c1, a, b), c2 = hn::MulAdd(c2, a, b), c3 = hn::MulAdd(c3, a, b);
    c4 = hn::MulAdd(c4, a, b), c5 = hn::MulAdd(c5, a, b), c6 = hn::MulAdd(c6, a, b), c7 = hn::MulAdd(c7, a, b);
    c8 = hn::MulAdd(c8, a, b), c9 = hn::MulAdd(c9, a, b), c10 = hn::MulAdd(c10, a, b), c11 = hn::MulAdd(c11, a, b);
  }
  const auto all = hn::Add(hn::Add(hn::Add(c0, c1), hn::Add(c2, c3)),
                           hn::Add(hn::Add(hn::Add(c4, c5), hn::Add(c6, c7)), hn::Add(hn::Add(c8, c9), hn::Add(c10, c11))));
  *sink = hn::GetLane(hn::SumOfLanes(d, all)) * 0.0f;
  return 12.0 * 2.0 * static_cast<double>(rounds) * static_cast<double>(hn::Lanes(d));
}

}  // namespace HWY_NAMESPACE
}  // namespace lc::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lc::kernels {
HWY_EXPORT(fma_loop);

namespace {
using Clock = std::chrono::steady_clock;
template <class F>
double best_seconds(int repeats, F&& f) {
  double best = 1e9;
  for (int i = 0; i < repeats; ++i) {
    const auto start = Clock::now();
    f();
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best;
}
}  // namespace

MachinePeak measure_peak() {
  constexpr std::int64_t kRounds = 2'000'000;
  constexpr std::size_t kBytes = std::size_t{64} << 20;
  const int n = omp_get_max_threads();
  std::vector<double> done(static_cast<std::size_t>(n));
  std::vector<float> sinks(static_cast<std::size_t>(n) * 16);
  const double compute = best_seconds(8, [&] {
#pragma omp parallel
    done[thread()] = HWY_DYNAMIC_DISPATCH(fma_loop)(kRounds, &sinks[static_cast<std::size_t>(thread()) * 16]);
  });
  std::vector<char> from(kBytes, 1), to(kBytes, 2);
  const double copy = best_seconds(8, [&] {
#pragma omp parallel
    {
      const std::size_t share = kBytes / static_cast<std::size_t>(n), begin = share * static_cast<std::size_t>(thread());
      std::memcpy(to.data() + begin, from.data() + begin, share);
    }
  });
  double flops = 0;
  for (const double d : done) flops += d;
  return {flops / compute / 1e9, 2.0 * static_cast<double>(kBytes) / copy / 1e9};
}

}  // namespace lc::kernels
#endif
