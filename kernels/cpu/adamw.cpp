// adamw: one pass over the arena, in chunks of its segments; gradient_norm: its global norm, summed in double in fixed chunks.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/simd.h"
#include "kernels/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/adamw.cpp"
#include <hwy/foreach_target.h>
// after foreach_target
#include "kernels/cpu/simd-inl.h"

#ifndef LC_KERNELS_CPU_ADAMW_ONCE
#define LC_KERNELS_CPU_ADAMW_ONCE
namespace lc::kernels {
// The numbers of one step and segment, rounded once from double: 1 − β must belong to the same β as the bias correction.
struct AdamFactors {
  float keep1 = 0, take1 = 0, keep2 = 0, take2 = 0;  // β and 1 − β
  float step_size = 0, second_scale = 0;             // lr / (1 − β1ᵗ), 1 / √(1 − β2ᵗ)
  float eps = 0, shrink = 0, clip = 1;               // shrink: lr · decay
};
}  // namespace lc::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace lc::kernels::HWY_NAMESPACE {

template <class T>
void adamw_run(const AdamW<T>& a, const AdamFactors& f, std::int64_t begin, std::int64_t count) {
  const auto all = [](float x) HWY_ATTR { return hn::Set(F(), x); };
  const V keep1 = all(f.keep1), take1 = all(f.take1), keep2 = all(f.keep2), take2 = all(f.take2), clip = all(f.clip);
  const V step_size = all(f.step_size), second_scale = all(f.second_scale), eps = all(f.eps), shrink = all(f.shrink);
  float *master = a.master + begin, *moment1 = a.moment1 + begin, *moment2 = a.moment2 + begin;
  const float* gradient = a.gradient + begin;
  T* storage = a.storage == nullptr ? nullptr : a.storage + begin;
  for_columns(count, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
    const V g = hn::Mul(load(gradient + i, n), clip), p = load(master + i, n);
    const V m = hn::MulAdd(keep1, load(moment1 + i, n), hn::Mul(take1, g));
    const V v = hn::MulAdd(keep2, load(moment2 + i, n), hn::Mul(take2, hn::Mul(g, g)));
    const V step = hn::Div(hn::Mul(step_size, m), hn::MulAdd(hn::Sqrt(v), second_scale, eps));
    const V updated = hn::Sub(p, hn::MulAdd(shrink, p, step));  // one rounding of p: 1 − lr·decay itself would lose most of a small decay
    store(m, moment1 + i, n);
    store(v, moment2 + i, n);
    store(updated, master + i, n);
    if (storage != nullptr) store(updated, storage + i, n);
  });
}
void adamw_run_f32(const AdamW<float>& a, const AdamFactors& f, std::int64_t begin, std::int64_t count) { adamw_run(a, f, begin, count); }
void adamw_run_bf16(const AdamW<bf16>& a, const AdamFactors& f, std::int64_t begin, std::int64_t count) { adamw_run(a, f, begin, count); }

double sum_of_squares(const float* g, std::int64_t count) {
  const hn::ScalableTag<double> wide;
  const hn::Rebind<float, hn::ScalableTag<double>> narrow;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(wide));
  auto even = hn::Zero(wide), odd = hn::Zero(wide);
  std::int64_t i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    const auto a = hn::PromoteTo(wide, hn::LoadU(narrow, g + i)), b = hn::PromoteTo(wide, hn::LoadU(narrow, g + i + lanes));
    even = hn::MulAdd(a, a, even);
    odd = hn::MulAdd(b, b, odd);
  }
  double sum = hn::GetLane(hn::SumOfLanes(wide, hn::Add(even, odd)));
  for (; i < count; ++i) sum += static_cast<double>(g[i]) * g[i];
  return sum;
}

}  // namespace lc::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lc::kernels {
namespace {
HWY_EXPORT(adamw_run_f32);
HWY_EXPORT(adamw_run_bf16);
HWY_EXPORT(sum_of_squares);

constexpr std::int64_t kUpdateChunk = 16384, kNormChunk = 4096;

struct Piece {
  std::int64_t begin = 0, count = 0;
  const Segment* segment = nullptr;
};
std::vector<Piece> pieces_of(const Segment* segments, std::int64_t count, std::int64_t chunk) {
  std::vector<Piece> pieces;
  for (const Segment* s = segments; s != segments + count; ++s) {
    for (std::int64_t i = 0; !s->frozen && i < s->length; i += chunk) pieces.push_back({s->offset + i, std::min(chunk, s->length - i), s});
  }
  return pieces;
}

template <class T>
AdamFactors factors_of(const AdamW<T>& a, const Segment& segment) {
  const double beta1 = a.beta1, beta2 = a.beta2, lr = a.lr, t = static_cast<double>(a.step);
  const auto rounded = [](double x) { return static_cast<float>(x); };
  return {.keep1 = a.beta1,
          .take1 = rounded(1 - beta1),
          .keep2 = a.beta2,
          .take2 = rounded(1 - beta2),
          .step_size = rounded(lr / (1 - std::pow(beta1, t))),
          .second_scale = rounded(1 / std::sqrt(1 - std::pow(beta2, t))),
          .eps = a.eps,
          .shrink = rounded(lr * static_cast<double>(segment.decay)),
          .clip = a.clip_factor == nullptr ? 1.0f : *a.clip_factor};
}

template <class T, class Run>
void update(const AdamW<T>& a, Run run) {
  if (a.clip_factor && std::isnan(*a.clip_factor)) return;
  const std::vector<Piece> pieces = pieces_of(a.segments, a.count, kUpdateChunk);
  parallel_for(static_cast<std::int64_t>(pieces.size()), 1, [&](std::int64_t i, std::int64_t, std::int64_t) {
    const Piece& piece = pieces[static_cast<std::size_t>(i)];
    run(a, factors_of(a, *piece.segment), piece.begin, piece.count);
  });
}
}  // namespace

template <>
void adamw<Device::cpu, float>(Queue, const AdamW<float>& a) {
  update(a, HWY_DYNAMIC_DISPATCH(adamw_run_f32));
}
template <>
void adamw<Device::cpu, bf16>(Queue, const AdamW<bf16>& a) {
  update(a, HWY_DYNAMIC_DISPATCH(adamw_run_bf16));
}

template <>
void gradient_norm<Device::cpu>(Queue, const GradientNorm& a) {
  const std::vector<Piece> pieces = pieces_of(a.segments, a.count, kNormChunk);
  std::vector<double> squares(pieces.size());
  parallel_for(static_cast<std::int64_t>(pieces.size()), 16, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    for (std::int64_t i = begin; i < end; ++i) {
      const auto at = static_cast<std::size_t>(i);
      squares[at] = HWY_DYNAMIC_DISPATCH(sum_of_squares)(a.gradient + pieces[at].begin, pieces[at].count);
    }
  });
  double sum = 0;
  for (const double each : squares) sum += each;
  const double norm = std::sqrt(sum);
  *a.norm = static_cast<float>(norm);
  if (!std::isfinite(norm))
    *a.clip_factor = std::numeric_limits<float>::quiet_NaN();
  else
    *a.clip_factor = a.clip > 0 ? static_cast<float>(std::min(1.0, static_cast<double>(a.clip) / (norm + 1e-6))) : 1.0f;
}

}  // namespace lc::kernels
#endif
