// What every kernel agrees on: where work happens, how numbers are stored, and the one source of chance.
// The constexpr functions run on both devices with the same bits (nvcc: --expt-relaxed-constexpr).
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace lc {

enum class Device : std::uint8_t { cpu, cuda, none };  // none: kernels/none.cpp, where nothing is computed
enum class DType : std::uint8_t { f32, bf16, i32, i64, u64, u8 };

constexpr std::size_t size_of(DType type) {
  return type == DType::bf16 ? 2 : type == DType::u8 ? 1 : type == DType::i64 || type == DType::u64 ? 8 : 4;
}
constexpr const char* name_of(DType type) {
  constexpr const char* names[] = {"f32", "bf16", "i32", "i64", "u64", "u8"};
  return names[static_cast<int>(type)];
}

// Where work happens: a device and an ordered stream of work on it.
struct Queue {
  Device device = Device::cpu;
  int index = 0;
  void* stream = nullptr;
  constexpr bool imagined() const { return index < 0; }  // stands for its device without using it: engine/memory.h, imagined_queue
  friend constexpr bool operator==(const Queue&, const Queue&) = default;
};

// bf16 is storage: load, convert, compute in float, round once (to nearest, ties to even).
struct bf16 {
  std::uint16_t bits = 0;
};
constexpr float to_float(float x) { return x; }
constexpr float to_float(bf16 x) { return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16); }
template <class T>
constexpr T from_float(float x);
template <>
constexpr float from_float<float>(float x) {
  return x;
}
template <>
constexpr bf16 from_float<bf16>(float x) {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>((u >> 16) | 0x40)};  // NaN stays NaN
  return {static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}
template <class T>
inline constexpr DType dtype_of = DType::f32;
template <>
inline constexpr DType dtype_of<bf16> = DType::bf16;
template <>
inline constexpr DType dtype_of<std::int32_t> = DType::i32;
template <>
inline constexpr DType dtype_of<std::int64_t> = DType::i64;
template <>
inline constexpr DType dtype_of<std::uint64_t> = DType::u64;
template <>
inline constexpr DType dtype_of<std::uint8_t> = DType::u8;

// ---- Chance: Philox4x32 (Salmon et al., SC'11). Which element gets which bits is fixed below.

struct Philox {
  std::uint32_t word[4];
};
struct PhiloxKey {
  std::uint32_t word[2];
};

template <int Rounds>
constexpr Philox philox(Philox c, PhiloxKey k) {
  for (int round = 0; round < Rounds; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53u} * c.word[0], b = std::uint64_t{0xCD9E8D57u} * c.word[2];
    c = {{static_cast<std::uint32_t>(b >> 32) ^ c.word[1] ^ k.word[0], static_cast<std::uint32_t>(b),
          static_cast<std::uint32_t>(a >> 32) ^ c.word[3] ^ k.word[1], static_cast<std::uint32_t>(a)}};
    k.word[0] += 0x9E3779B9u, k.word[1] += 0xBB67AE85u;
  }
  return c;
}

// The key of one optimiser step: (seed, stage·2³² + step) has 128 bits, Philox4x32 takes 64; ten rounds fold them.
constexpr PhiloxKey chance_of_step(std::uint64_t seed, std::uint32_t stage, std::uint32_t step) {
  const Philox folded = philox<10>({{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32), stage, step}}, {{0, 0}});
  return {{folded.word[0], folded.word[1]}};
}

// A name as a number, for keys of chance (FNV-1a, 64 bits).
constexpr std::uint64_t fnv1a(std::string_view text) {
  std::uint64_t h = 0xcbf29ce484222325ull;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return h;
}

// Which pass through a tower a sequence belongs to; part of its key, so that no two passes share a mask.
enum class Pass : std::uint8_t { view_a, view_b, masked, text, pair_pos, pair_neg_text, pair_neg_cell };
constexpr std::uint64_t sequence_key(Pass pass, std::uint64_t sample) {
  return (static_cast<std::uint64_t>(pass) << 56) | (sample & 0x00ffffffffffffffull);
}

// Dropout of one site (an attention or a hidden state of one layer). rate 0 switches it off.
struct Dropout {
  float rate = 0;
  PhiloxKey key{};
  std::uint32_t site = 0;  // below 2^23: the number of the operator within its tower
};

// Counter: sequence key (2 words), site and head, row and column block.
// attention: one call of 7 rounds serves the 16 elements that lane l of a warp owns in a block of 16 queries × 32 keys: rows l/4 + 8r,
//            columns 8j + 2(l mod 4) + e; byte 2r + e of word j (r, e in {0, 1}, j = 0…3).
// hidden:    one call of 7 rounds serves 16 neighbouring columns of a row; column c is byte c mod 4 of word (c / 4) mod 4.
constexpr Philox attention_bits(const Dropout& d, std::uint64_t sequence, int head, int row_block, int column_block_and_lane) {
  return philox<7>(
      {{static_cast<std::uint32_t>(sequence), static_cast<std::uint32_t>(sequence >> 32), d.site << 8 | static_cast<std::uint32_t>(head),
        static_cast<std::uint32_t>(row_block) << 18 | static_cast<std::uint32_t>(column_block_and_lane)}},
      d.key);
}
constexpr int attention_column_block_and_lane(int column_block, int lane) { return column_block << 5 | lane; }
constexpr Philox hidden_bits(const Dropout& d, std::uint64_t sequence, int row, int column_block) {
  return philox<7>({{static_cast<std::uint32_t>(sequence), static_cast<std::uint32_t>(sequence >> 32), d.site << 8,
                     static_cast<std::uint32_t>(row) << 12 | static_cast<std::uint32_t>(column_block)}},
                   d.key);
}
// A byte is kept when it is below this threshold (0 … 256), dithered per (site, head, 16-row block) so that the mean is 1 − rate.
constexpr std::uint32_t keep_threshold(const Dropout& d, std::uint64_t sequence, int head, int row_block) {
  const double wanted = 256.0 * (1.0 - static_cast<double>(d.rate));
  const std::uint32_t whole = static_cast<std::uint32_t>(wanted);
  const std::uint32_t fraction = static_cast<std::uint32_t>((wanted - whole) * 4294967296.0);
  const Philox draw = philox<7>({{static_cast<std::uint32_t>(sequence), static_cast<std::uint32_t>(sequence >> 32),
                                  0x80000000u | d.site << 8 | static_cast<std::uint32_t>(head), static_cast<std::uint32_t>(row_block)}},
                                d.key);
  return whole + (draw.word[0] < fraction ? 1u : 0u);
}
constexpr float keep_scale(const Dropout& d) { return static_cast<float>(1.0 / (1.0 - static_cast<double>(d.rate))); }

}  // namespace lc
