// Soft-max over rows of scores with Highway, and products by oneDNN's sgemm.
#include "kernels/cpu/loss_tiles.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/onednn.h"
#include "kernels/cpu/simd.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/loss_tiles.cpp"
#include <hwy/foreach_target.h>
// after foreach_target
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lc::kernels::HWY_NAMESPACE {
using loss_tiles::Exponentials;
using loss_tiles::LogSumExp;
static_assert(loss_tiles::kRowPadding % kLanes == 0);

// exp to 1 ulp for −87 ≤ x ≤ 88 (Cephes' polynomial); 0 below; NaN stays NaN, which hn::Exp turns into 0.
HWY_INLINE V exponential(V x) {
  const F d;
  const hn::RebindToSigned<F> di;
  const V whole = hn::Round(hn::Mul(x, hn::Set(d, 1.44269504088896341f)));
  V r = hn::NegMulAdd(whole, hn::Set(d, 0.693359375f), x);
  r = hn::NegMulAdd(whole, hn::Set(d, -2.12194440e-4f), r);
  V p = hn::MulAdd(hn::Set(d, 1.9875691500e-4f), r, hn::Set(d, 1.3981999507e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 8.3334519073e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 4.1665795894e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.6666665459e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 5.0000001201e-1f));
  p = hn::Add(hn::MulAdd(p, hn::Mul(r, r), r), hn::Set(d, 1.0f));
  const V scaled = hn::BitCast(d, hn::Add(hn::BitCast(di, p), hn::ShiftLeft<23>(hn::ConvertTo(di, whole))));
  return hn::IfThenElse(hn::Lt(x, hn::Set(d, -87.0f)), hn::Zero(d), hn::IfThenElse(hn::Eq(x, x), scaled, x));
}

LogSumExp exponentials_sum_row(float* scores, const float* bias, std::int64_t n) {
  V highest = hn::Set(F(), -std::numeric_limits<float>::infinity());
  for (std::int64_t j = 0; j < n; j += kLanes) {
    const V x = hn::Add(load(scores + j), load(bias + j));
    store(x, scores + j);
    highest = hn::Max(highest, x);
  }
  LogSumExp result;
  result.highest = hn::GetLane(hn::MaxOfLanes(F(), highest));
  if (result.highest == -std::numeric_limits<float>::infinity()) result.highest = 0;
  const V shift = hn::Set(F(), result.highest);
  V sum = hn::Zero(F());
  for (std::int64_t j = 0; j < n; j += kLanes) sum = hn::Add(sum, exponential(hn::Sub(load(scores + j), shift)));
  result.sum = sum_of_lanes(sum);
  return result;
}

template <class Use>
HWY_INLINE void each_exponential(const Exponentials& a, Use use) {
  const V shift = hn::Set(F(), a.shift), factor = hn::Set(F(), a.factor);
  for (std::int64_t j = 0; j < a.n; j += kLanes) {
    const V y = hn::Mul(factor, exponential(hn::Sub(hn::Add(load(a.scores + j), load(a.bias + j)), shift)));
    store(y, a.scores + j);
    use(j, y);
  }
}
void exponentials_row(const Exponentials& a) {
  each_exponential(a, [](std::int64_t, V) HWY_ATTR {});
}
void exponentials_and_sums_row(const Exponentials& a, float* sums) {
  each_exponential(a, [=](std::int64_t j, V y) HWY_ATTR { store(hn::Add(load(sums + j), y), sums + j); });
}

void widen_row(const bf16* from, float* to, std::int64_t n) {
  for_columns(n, [=](std::int64_t c, std::int64_t valid) HWY_ATTR { store(load(from + c, valid), to + c, valid); });
}
void add_row(float* to, const float* from, std::int64_t n) {
  for_columns(n, [=](std::int64_t c, std::int64_t valid) HWY_ATTR { store(load(from + c, valid), to + c, valid, Into::add); });
}

}  // namespace lc::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lc::kernels {
HWY_EXPORT(exponentials_sum_row);
HWY_EXPORT(exponentials_row);
HWY_EXPORT(exponentials_and_sums_row);
HWY_EXPORT(widen_row);
HWY_EXPORT(add_row);

namespace loss_tiles {
namespace {
void pad_with_nothing(float* scores, std::int64_t n) {
  const std::int64_t padded = (n + kRowPadding - 1) / kRowPadding * kRowPadding;
  std::fill(scores + n, scores + padded, -std::numeric_limits<float>::infinity());
}
}  // namespace

void multiply(const Product& p) {
  if (p.rows == 0 || p.columns == 0) return;
  const OneThread one;
  require_onednn(dnnl_sgemm(p.transpose == Transpose::left ? 'T' : 'N', p.transpose == Transpose::right ? 'T' : 'N', p.rows, p.columns,
                            p.inner, p.alpha, p.left, p.left_stride, p.right, p.right_stride, p.beta, p.out, p.out_stride));
}

FloatRows as_float(Rows<const float> x, std::int64_t begin, std::int64_t, float*) { return {x.row(begin), x.stride}; }
FloatRows as_float(Rows<const bf16> x, std::int64_t begin, std::int64_t end, float* scratch) {
  for (std::int64_t i = begin; i < end; ++i) HWY_DYNAMIC_DISPATCH(widen_row)(x.row(i), scratch + (i - begin) * x.columns, x.columns);
  return {scratch, x.columns};
}

template <class T>
void store_rows(const Gradient<T>& to, std::int64_t begin, std::int64_t count, const float* rows, std::int64_t stride) {
  for (std::int64_t i = 0; i < count; ++i) {
    T* out = to.to.row(begin + i);
    const float* row = rows + i * stride;
    for (std::int64_t c = 0; c < to.to.columns; ++c) {
      out[c] = from_float<T>(to.into == Into::add ? to_float(out[c]) + row[c] : row[c]);
    }
  }
}
template void store_rows(const Gradient<float>&, std::int64_t, std::int64_t, const float*, std::int64_t);
template void store_rows(const Gradient<bf16>&, std::int64_t, std::int64_t, const float*, std::int64_t);

void add(float* to, const float* from, std::int64_t n) { HWY_DYNAMIC_DISPATCH(add_row)(to, from, n); }

double LogSumExp::value() const { return static_cast<double>(highest) + std::log(static_cast<double>(sum)); }

void LogSumExp::merge(const LogSumExp& other) {
  if (other.sum == 0) return;
  if (sum == 0) {
    *this = other;
    return;
  }
  const float both = std::max(highest, other.highest);
  sum = sum * std::exp(highest - both) + other.sum * std::exp(other.highest - both);
  highest = both;
}

LogSumExp sum_of_exponentials(float* scores, const float* bias, std::int64_t n) {
  pad_with_nothing(scores, n);
  return HWY_DYNAMIC_DISPATCH(exponentials_sum_row)(scores, bias, n);
}
void exponentials(const Exponentials& a) {
  pad_with_nothing(a.scores, a.n);
  HWY_DYNAMIC_DISPATCH(exponentials_row)(a);
}
void exponentials_and_sums(const Exponentials& a, float* sums) {
  pad_with_nothing(a.scores, a.n);
  HWY_DYNAMIC_DISPATCH(exponentials_and_sums_row)(a, sums);
}

}  // namespace loss_tiles
}  // namespace lc::kernels
#endif
