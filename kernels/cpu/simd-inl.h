// Rows of float or bf16 storage as Highway vectors of float; hidden dropout and GELU on them. Compiled once per instruction set.
// A vector may be cut at the end of a row: `n` lanes are valid, load() gives 0 in the others.
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include "kernels/kernels.h"

#if defined(LC_KERNELS_CPU_SIMD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef LC_KERNELS_CPU_SIMD_INL_H
#undef LC_KERNELS_CPU_SIMD_INL_H
#else
#define LC_KERNELS_CPU_SIMD_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace lc::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F = hn::ScalableTag<float>;
using V = hn::Vec<F>;
using U32 = hn::Rebind<std::uint32_t, F>;
using U16 = hn::Rebind<std::uint16_t, F>;
constexpr std::int64_t kLanes = HWY_LANES(float);

HWY_INLINE V load(const float* p, std::int64_t n = kLanes) {
  if (n == kLanes) return hn::LoadU(F(), p);
  HWY_ALIGN float part[kLanes] = {};
  for (std::int64_t i = 0; i < n; ++i) part[i] = p[i];
  return hn::Load(F(), part);
}
HWY_INLINE V load(const bf16* p, std::int64_t n = kLanes) {
  HWY_ALIGN std::uint16_t part[kLanes] = {};
  if (n != kLanes) {
    for (std::int64_t i = 0; i < n; ++i) part[i] = p[i].bits;
  }
  const auto bits = n == kLanes ? hn::LoadU(U16(), &p->bits) : hn::Load(U16(), part);
  return hn::BitCast(F(), hn::ShiftLeft<16>(hn::PromoteTo(U32(), bits)));
}

HWY_INLINE void store(V v, float* p, std::int64_t n = kLanes) {
  if (n == kLanes) return hn::StoreU(v, F(), p);
  HWY_ALIGN float part[kLanes];
  hn::Store(v, F(), part);
  for (std::int64_t i = 0; i < n; ++i) p[i] = part[i];
}
HWY_INLINE hn::Vec<U32> rounded_bits(V v) {  // of bf16, as from_float<bf16>
  const auto u = hn::BitCast(U32(), v), top = hn::ShiftRight<16>(u);
  const auto even = hn::And(top, hn::Set(U32(), 1));
  const auto rounded = hn::ShiftRight<16>(hn::Add(u, hn::Add(hn::Set(U32(), 0x7fff), even)));
  return hn::IfThenElse(hn::RebindMask(U32(), hn::IsNaN(v)), hn::Or(top, hn::Set(U32(), 0x40)), rounded);
}
HWY_INLINE void store(V v, bf16* p, std::int64_t n = kLanes) {
  const auto narrow = hn::DemoteTo(U16(), hn::BitCast(hn::Rebind<std::int32_t, F>(), rounded_bits(v)));
  if (n == kLanes) return hn::StoreU(narrow, U16(), &p->bits);
  HWY_ALIGN std::uint16_t part[kLanes];
  hn::Store(narrow, U16(), part);
  for (std::int64_t i = 0; i < n; ++i) p[i].bits = part[i];
}
// The value that a store of this type would leave.
template <class T>
HWY_INLINE V as_stored(V v) {
  if constexpr (dtype_of<T> == DType::f32)
    return v;
  else
    return hn::BitCast(F(), hn::ShiftLeft<16>(rounded_bits(v)));
}
template <class T>
HWY_INLINE void store(V v, T* p, std::int64_t n, Into into) {
  store(into == Into::add ? hn::Add(v, load(p, n)) : v, p, n);
}

HWY_INLINE V only_first(V v, std::int64_t n) {
  return n == kLanes ? v : hn::IfThenElseZero(hn::FirstN(F(), static_cast<std::size_t>(n)), v);
}
HWY_INLINE float sum_of_lanes(V v) { return hn::GetLane(hn::SumOfLanes(F(), v)); }

// body(column, valid lanes) over a row.
template <class Body>
HWY_INLINE void for_columns(std::int64_t columns, Body&& body) {
  std::int64_t c = 0;
  for (; c + kLanes <= columns; c += kLanes) body(c, kLanes);
  if (c < columns) body(c, columns - c);
}

// ---- hidden dropout (numeric.h, hidden_bits): the bytes of one row, then a select per vector. `bytes` has room for (C / 256 + 2) · 256.

HWY_INLINE void multiply_wide(hn::Vec<U32> a, std::uint32_t m, hn::Vec<U32>& high, hn::Vec<U32>& low) {
  const hn::Repartition<std::uint64_t, U32> u64;
  const auto factor = hn::Set(U32(), m);
  const auto even = hn::MulEven(a, factor);
  const auto odd = hn::MulEven(hn::BitCast(U32(), hn::ShiftRight<32>(hn::BitCast(u64, a))), factor);
  high = hn::OddEven(hn::BitCast(U32(), odd), hn::BitCast(U32(), hn::ShiftRight<32>(even)));
  low = hn::OddEven(hn::BitCast(U32(), hn::ShiftLeft<32>(odd)), hn::BitCast(U32(), even));
}

inline void draw_row(const Dropout& d, std::uint64_t sequence, int row, std::int64_t columns, std::uint8_t* bytes) {
  const U32 u32;
  for (std::int64_t block = 0; block * 16 < columns; block += kLanes) {  // one lane, one call of Philox, 16 columns
    auto a = hn::Set(u32, static_cast<std::uint32_t>(sequence)), b = hn::Set(u32, static_cast<std::uint32_t>(sequence >> 32));
    auto c = hn::Set(u32, d.site << 8), e = hn::Iota(u32, static_cast<std::uint32_t>(row) << 12 | static_cast<std::uint32_t>(block));
    PhiloxKey key = d.key;
    for (int round = 0; round < 7; ++round) {
      auto high_a = a, low_a = a, high_c = c, low_c = c;
      multiply_wide(a, 0xD2511F53u, high_a, low_a);
      multiply_wide(c, 0xCD9E8D57u, high_c, low_c);
      a = hn::Xor(hn::Xor(high_c, b), hn::Set(u32, key.word[0]));
      c = hn::Xor(hn::Xor(high_a, e), hn::Set(u32, key.word[1]));
      b = low_c, e = low_a;
      key.word[0] += 0x9E3779B9u, key.word[1] += 0xBB67AE85u;
    }
    hn::StoreInterleaved4(a, b, c, e, u32, reinterpret_cast<std::uint32_t*>(bytes + block * 16));
  }
}

// The kept elements of one row at a time, times 1/(1 − rate).
class HiddenDropout {
 public:
  HiddenDropout(const Dropout& dropout, const PackingView& packing, std::int64_t columns, void* bytes)
      : dropout_(dropout), packing_(packing), columns_(columns), bytes_(static_cast<std::uint8_t*>(bytes)), scale_(keep_scale(dropout)) {}

  explicit operator bool() const { return dropout_.rate > 0; }

  void next_row(std::int64_t token) {
    const std::int32_t b = packing_.sequence_of[token];
    const int row = static_cast<int>(token - packing_.offsets[b]);
    if (b != sequence_ || row / 16 != row_block_) {
      sequence_ = b, row_block_ = row / 16;
      threshold_ = static_cast<std::int32_t>(keep_threshold(dropout_, packing_.keys[b], 0, row_block_));
    }
    draw_row(dropout_, packing_.keys[b], row, columns_, bytes_);
  }

  HWY_INLINE V operator()(V v, std::int64_t column) const {
    const hn::Rebind<std::int32_t, F> i32;
    const auto draw = hn::PromoteTo(i32, hn::LoadU(hn::Rebind<std::uint8_t, F>(), bytes_ + column));
    const auto kept = hn::RebindMask(F(), hn::Lt(draw, hn::Set(i32, threshold_)));
    return hn::IfThenElseZero(kept, hn::Mul(v, hn::Set(F(), scale_)));
  }

 private:
  const Dropout& dropout_;
  const PackingView& packing_;
  std::int64_t columns_;
  std::uint8_t* bytes_;
  float scale_;
  std::int32_t sequence_ = -1, row_block_ = -1, threshold_ = 0;
};

// ---- ReLU. NaN stays NaN, which hn::Max may turn into 0; what passes it backward is what passed forward.

HWY_INLINE V relu(V x) { return hn::IfThenZeroElse(hn::Le(x, hn::Zero(F())), x); }
HWY_INLINE V relu_gradient(V y, V dy) { return hn::IfThenZeroElse(hn::Le(y, hn::Zero(F())), dy); }

// ---- GELU, erf form. erf: two minimax polynomials, below 1 ulp, after N. Juffa.

HWY_INLINE V erf(V x) {
  const F d;
  const auto set = [](float value) HWY_ATTR { return hn::Set(F(), value); };
  const V s = hn::Mul(x, x), t = hn::Min(hn::Abs(x), set(10.0f));
  V small = hn::MulAdd(set(-5.96761703e-4f), s, set(4.99119423e-3f));
  small = hn::MulAdd(small, s, set(-2.67681349e-2f));
  small = hn::MulAdd(small, s, set(1.12819925e-1f));
  small = hn::MulAdd(small, s, set(-3.76125336e-1f));
  small = hn::MulAdd(small, s, set(1.28379166e-1f));
  small = hn::MulAdd(small, x, x);
  V large = hn::MulAdd(set(-1.72853470e-5f), t, set(3.83197126e-4f));
  large = hn::MulAdd(large, hn::Mul(t, t), hn::MulAdd(set(-3.88396438e-3f), t, set(2.42546219e-2f)));
  large = hn::MulAdd(large, t, set(-1.06777877e-1f));
  large = hn::MulAdd(large, t, set(-6.34846687e-1f));
  large = hn::MulAdd(large, t, set(-1.28717512e-1f));
  large = hn::MulAdd(large, t, hn::Neg(t));
  large = hn::CopySign(hn::Sub(set(1.0f), hn::Exp(d, large)), x);
  return hn::IfThenElse(hn::Gt(t, set(0.927734375f)), large, small);
}
HWY_INLINE V normal_cdf(V x) {
  const V half = hn::Set(F(), 0.5f);
  return hn::MulAdd(half, erf(hn::Mul(x, hn::Set(F(), 0.70710678f))), half);
}
HWY_INLINE V gelu(V x) { return hn::Mul(x, normal_cdf(x)); }
HWY_INLINE V gelu_slope(V x) {  // Φ(x) + x φ(x)
  const V density = hn::Mul(hn::Set(F(), 0.39894228f), hn::Exp(F(), hn::Mul(hn::Set(F(), -0.5f), hn::Mul(x, x))));
  return hn::MulAdd(x, density, normal_cdf(x));
}

}  // namespace lc::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
