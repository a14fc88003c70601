// Pieces of the attention kernels, compiled once for each instruction set (included anew by foreach_target): register tiles,
// moving rows of one head between storage and float scratch, exp2, and dropout masks. All scratch rows are kStride floats apart.
#if defined(LC_KERNELS_CPU_ATTENTION_TILES_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef LC_KERNELS_CPU_ATTENTION_TILES_INL_H
#undef LC_KERNELS_CPU_ATTENTION_TILES_INL_H
#else
#define LC_KERNELS_CPU_ATTENTION_TILES_INL_H
#endif

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "kernels/cpu/attention_tasks.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lc::kernels::attention {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace simd = lc::kernels::HWY_NAMESPACE;
using simd::load;
using simd::store;
using simd::sum_of_lanes;

using Floats = hn::ScalableTag<float>;
using Words = hn::RebindToUnsigned<Floats>;
using Bytes = hn::Repartition<std::uint8_t, Floats>;
using Pairs = hn::Repartition<std::uint64_t, Floats>;
using VF = hn::Vec<Floats>;
using VW = hn::Vec<Words>;
constexpr Floats kF{};
constexpr Words kW{};
constexpr std::int64_t kLanes = hn::MaxLanes(kF);
constexpr std::int64_t kPanel = 2 * kLanes;            // columns of a tile
constexpr std::int64_t kTile = kLanes >= 16 ? 14 : 6;  // rows of a tile: accumulators, two operands and a broadcast fill the registers

// ---- register tiles: c (rows, kPanel) = or += a (rows, depth) · b (depth, kPanel)
enum class Left : std::uint8_t { rows, columns };  // how a lies in memory: rows, or transposed
struct Product {
  std::int64_t depth;
  const float* a;
  const float* b;
  std::int64_t b_stride;
  float* c;
  Into into;
};

template <Left L, int M>
HWY_NOINLINE void tile(const Product& p) {
  constexpr std::int64_t row = L == Left::rows ? kStride : 1, step = L == Left::rows ? 1 : kStride;
  VF c[M][2];
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
    c[i][0] = p.into == Into::add ? hn::Load(kF, p.c + i * kStride) : hn::Zero(kF);
    c[i][1] = p.into == Into::add ? hn::Load(kF, p.c + i * kStride + kLanes) : hn::Zero(kF);
  }
  const float *a = p.a, *b = p.b;
  const std::int64_t b_stride = p.b_stride;
#pragma GCC unroll 2
  for (std::int64_t k = p.depth; k > 0; --k) {
    const VF b0 = hn::Load(kF, b), b1 = hn::Load(kF, b + kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      const VF x = hn::Set(kF, a[i * row]);
      c[i][0] = hn::MulAdd(x, b0, c[i][0]);
      c[i][1] = hn::MulAdd(x, b1, c[i][1]);
    }
    a += step, b += b_stride;
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
    hn::Store(c[i][0], kF, p.c + i * kStride);
    hn::Store(c[i][1], kF, p.c + i * kStride + kLanes);
  }
}

template <Left L, int... I>
constexpr auto tiles_of(std::integer_sequence<int, I...>) {
  return std::array<void (*)(const Product&), sizeof...(I)>{tile<L, 2 * (I + 1)>...};
}
template <Left L>
HWY_INLINE void multiply(std::int64_t rows, const Product& p) {  // rows even, at most kTile
  static constexpr auto tiles = tiles_of<L>(std::make_integer_sequence<int, kTile / 2>{});
  tiles[static_cast<std::size_t>(rows / 2 - 1)](p);
}

// Rows cut into strips of an even number, at most kTile and nearly equal: no thin tail. An odd last row computes its neighbour too.
struct Strips {
  explicit Strips(std::int64_t rows) : pairs((rows + 1) / 2), count((2 * pairs + kTile - 1) / kTile) {}
  std::int64_t begin(std::int64_t i) const { return pairs * i / count * 2; }
  std::int64_t rows(std::int64_t i) const { return begin(i + 1) - begin(i); }
  std::int64_t pairs, count;
};

// c (rows, width) = or += a · b, all in scratch: b has rows of `width` floats.
template <Left L>
void multiply_rows(std::int64_t rows, std::int64_t width, const Product& whole) {
  const Strips strips(rows);
  for (std::int64_t h = 0; h < width; h += kPanel) {
    for (std::int64_t i = 0; i < strips.count; ++i) {
      Product p = whole;
      p.a += strips.begin(i) * (L == Left::rows ? kStride : 1);
      p.b += h;
      p.c += strips.begin(i) * kStride + h;
      multiply<L>(strips.rows(i), p);
    }
  }
}

// c (rows, keys) = a (rows, width) · panels of transposed keys, for one strip of rows.
HWY_INLINE void multiply_panels(std::int64_t rows, std::int64_t width, std::int64_t keys, const float* a, const float* panels, float* c) {
  for (std::int64_t k = 0; k < keys; k += kPanel) multiply<Left::rows>(rows, {width, a, panels + k * width, kPanel, c + k, Into::write});
}

// ---- rows of one head, between storage and scratch
template <class T>
struct Head {
  T* data = nullptr;
  std::int64_t stride = 0, width = 0;
  T* row(std::int64_t i) const { return data + i * stride; }
};
template <class T>
Head<T> head_of(const Rows<T>& rows, int head, std::int64_t width) {
  return {rows.data ? rows.data + head * width : nullptr, rows.stride, width};
}

template <class T>
void pack(const Head<const T>& from, std::int64_t first, std::int64_t n, float scale, float* to) {
  const VF factor = hn::Set(kF, scale);
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t c = 0; c < from.width; c += kLanes)
      hn::Store(hn::Mul(load(from.row(first + i) + c), factor), kF, to + i * kStride + c);
  }
}
HWY_INLINE void clear(std::int64_t n, std::int64_t width, float* rows) {
  for (std::int64_t i = 0; i < n; ++i) std::fill_n(rows + i * kStride, width, 0.0f);
}
template <class T>
void unpack(const float* from, std::int64_t n, float scale, const Head<T>& to, std::int64_t first, Into into) {
  const VF factor = hn::Set(kF, scale);
  for (std::int64_t i = 0; i < n; ++i) {
    T* const row = to.row(first + i);
    for (std::int64_t c = 0; c < to.width; c += kLanes) {
      const VF x = hn::Mul(hn::Load(kF, from + i * kStride + c), factor);
      store(into == Into::add ? hn::Add(load(row + c), x) : x, row + c);
    }
  }
}

// rows (n, width) → panels of kPanel columns: panel[c][i] = rows[i][c]; the last panel is filled with zeros.
HWY_INLINE void transpose(float* rows, std::int64_t n, std::int64_t width, float* panels) {
  const hn::FixedTag<float, 4> quad;
  const hn::FixedTag<double, 2> two;
  const auto wide = [&](auto x) HWY_ATTR { return hn::BitCast(two, x); };
  const auto put = [&](auto x, float* to) HWY_ATTR { hn::Store(hn::BitCast(quad, x), quad, to); };
  clear((n + kPanel - 1) / kPanel * kPanel - n, width, rows + n * kStride);
  for (std::int64_t i = 0; i < n; i += 4) {
    float* const panel = panels + i / kPanel * kPanel * width + i % kPanel;
    for (std::int64_t c = 0; c < width; c += 4) {
      const float* const from = rows + i * kStride + c;
      const auto a = hn::Load(quad, from), b = hn::Load(quad, from + kStride);
      const auto e = hn::Load(quad, from + 2 * kStride), f = hn::Load(quad, from + 3 * kStride);
      const auto ab = hn::InterleaveLower(quad, a, b), ef = hn::InterleaveLower(quad, e, f);
      const auto ab2 = hn::InterleaveUpper(quad, a, b), ef2 = hn::InterleaveUpper(quad, e, f);
      put(hn::InterleaveLower(two, wide(ab), wide(ef)), panel + c * kPanel);
      put(hn::InterleaveUpper(two, wide(ab), wide(ef)), panel + (c + 1) * kPanel);
      put(hn::InterleaveLower(two, wide(ab2), wide(ef2)), panel + (c + 2) * kPanel);
      put(hn::InterleaveUpper(two, wide(ab2), wide(ef2)), panel + (c + 3) * kPanel);
    }
  }
}
inline std::size_t panels_size(std::int64_t n, std::int64_t width) { return static_cast<std::size_t>((n + kPanel) * width); }

// ---- exp2: 0 below −100, relative error 1.4e-7 up to 126, NaN stays NaN
HWY_INLINE VF exp2(VF x) {
  const VF shift = hn::Set(kF, 12582912.0f);  // 1.5 · 2^23: adding it rounds to an integer and leaves that in the low bits
  const VF shifted = hn::Add(x, shift), f = hn::Sub(x, hn::Sub(shifted, shift));
  VF p = hn::Set(kF, 1.327647217e-3f);  // the polynomial of least relative error on [−½, ½]
  p = hn::MulAdd(p, f, hn::Set(kF, 9.675541331e-3f));
  p = hn::MulAdd(p, f, hn::Set(kF, 5.550713273e-2f));
  p = hn::MulAdd(p, f, hn::Set(kF, 2.402211972e-1f));
  p = hn::MulAdd(p, f, hn::Set(kF, 6.931469671e-1f));
  p = hn::MulAdd(p, f, hn::Set(kF, 1.000000072f));
  const VF y = hn::BitCast(kF, hn::Add(hn::BitCast(kW, p), hn::ShiftLeft<23>(hn::BitCast(kW, shifted))));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(kF, -100.0f)), y);
}

// ---- chance: philox<7> of many lanes at once. What is the same in all lanes stays a plain number, so the first rounds are cheap.
HWY_INLINE VW both(VW a, VW b) { return hn::Xor(a, b); }
HWY_INLINE VW both(VW a, std::uint32_t b) { return hn::Xor(a, hn::Set(kW, b)); }
HWY_INLINE VW both(std::uint32_t a, VW b) { return both(b, a); }
HWY_INLINE std::uint32_t both(std::uint32_t a, std::uint32_t b) { return a ^ b; }
template <class V>
struct Wide {
  V high, low;
};
HWY_INLINE Wide<std::uint32_t> times(std::uint32_t a, std::uint32_t m) {
  const std::uint64_t x = std::uint64_t{a} * m;
  return {static_cast<std::uint32_t>(x >> 32), static_cast<std::uint32_t>(x)};
}
HWY_INLINE Wide<VW> times(VW a, std::uint32_t m) {
  Wide<VW> product{a, a};
  simd::multiply_wide(a, m, product.high, product.low);
  return product;
}
template <int Rounds, class A, class B, class C, class D>
HWY_INLINE std::array<VW, 4> philox_lanes(A a, B b, C c, D d, PhiloxKey k) {
  if constexpr (Rounds == 0) {
    return {a, b, c, d};
  } else {
    const auto x = times(a, 0xD2511F53u);
    const auto y = times(c, 0xCD9E8D57u);
    return philox_lanes<Rounds - 1>(both(both(y.high, b), k.word[0]), y.low, both(both(x.high, d), k.word[1]), x.low,
                                    {{k.word[0] + 0x9E3779B9u, k.word[1] + 0xBB67AE85u}});
  }
}

// Which of the 16 × 32 weights of a block are kept: bit c of kept[r]. The layout is attention_bits' (kernels/numeric.h).
struct KeepBlock {
  std::uint64_t key;  // of the sequence
  std::uint32_t site_and_head, threshold;
  int row_block, column_block;
};
HWY_INLINE void keep_block(PhiloxKey chance, const KeepBlock& at, std::uint32_t* kept) {
  alignas(16) static constexpr std::uint8_t kRowsApart[16] = {0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15};
  constexpr Bytes bytes;
  constexpr Pairs pairs;
  if (at.threshold == 0) return std::fill_n(kept, 16, 0u), void();
  const auto limit = hn::Set(bytes, static_cast<std::uint8_t>(at.threshold - 1));
  const auto apart = hn::LoadDup128(bytes, kRowsApart);
  for (int lane = 0; lane < 32; lane += static_cast<int>(kLanes)) {
    const int column_block_and_lane = attention_column_block_and_lane(at.column_block, lane);
    const VW last = hn::Iota(kW, static_cast<std::uint32_t>(at.row_block) << 18 | static_cast<std::uint32_t>(column_block_and_lane));
    const auto word =
        philox_lanes<7>(static_cast<std::uint32_t>(at.key), static_cast<std::uint32_t>(at.key >> 32), at.site_and_head, last, chance);
    const auto rows_apart = [&](int j) HWY_ATTR { return hn::BitCast(pairs, hn::TableLookupBytes(hn::BitCast(bytes, word[j]), apart)); };
    const auto bits_of = [&](auto x, std::uint16_t* to) HWY_ATTR {
      const auto b = hn::BitCast(bytes, x);
      hn::StoreMaskBits(bytes, hn::Eq(hn::Min(b, limit), b), reinterpret_cast<std::uint8_t*>(to));
    };
    std::uint16_t bits[2][2][8];  // [row half][column half][lane / 4]
    for (int half = 0; half < 2; ++half) {
      const auto x = rows_apart(2 * half), y = rows_apart(2 * half + 1);
      bits_of(hn::InterleaveLower(pairs, x, y), bits[0][half]);
      bits_of(hn::InterleaveUpper(pairs, x, y), bits[1][half]);
    }
    for (int i = 0; i < kLanes / 4; ++i) {
      kept[lane / 4 + i] = bits[0][0][i] | static_cast<std::uint32_t>(bits[0][1][i]) << 16;
      kept[lane / 4 + i + 8] = bits[1][0][i] | static_cast<std::uint32_t>(bits[1][1][i]) << 16;
    }
  }
}

using Kept = std::uint32_t[kKeyBlock / 32];  // a row of a block of scores
HWY_INLINE void keep_rows(const Dropout& d, int head, const std::vector<Run>& runs, std::int64_t first_key, std::int64_t keys, Kept* kept) {
  KeepBlock at{0, d.site << 8 | static_cast<std::uint32_t>(head), 0, 0, 0};
  for (const Run& run : runs) {
    const std::int64_t last = run.position + run.rows;
    at.key = run.key;
    for (std::int64_t top = run.position / 16 * 16; top < last; top += 16) {
      at.row_block = static_cast<int>(top / 16);
      at.threshold = keep_threshold(d, run.key, head, at.row_block);
      for (std::int64_t k = 0; k < keys; k += 32) {
        std::uint32_t block[16];
        at.column_block = static_cast<int>((first_key + k) / 32);
        keep_block(d.key, at, block);
        for (std::int64_t r = std::max(top, run.position); r < std::min(top + 16, last); ++r) {
          kept[run.row + r - run.position][k / 32] = block[r - top];
        }
      }
    }
  }
}
HWY_INLINE hn::Mask<Floats> kept_lanes(const std::uint32_t* kept, std::int64_t column) {
  const std::uint32_t bits = kept[column / 32] >> (column % 32);
  std::uint8_t b[4];
  std::memcpy(b, &bits, 4);
  return hn::LoadMaskBits(kF, b);
}

}  // namespace HWY_NAMESPACE
}  // namespace lc::kernels::attention
HWY_AFTER_NAMESPACE();

#endif
