#include "engine/stored_tensor.h"

#include <algorithm>
#include <array>
#include <bit>

namespace lc {
namespace {

static_assert(std::endian::native == std::endian::little, "the formats read here are little-endian");

struct TypeRow {
  const char* name;
  size_t bytes;
};
constexpr std::array<TypeRow, 13> kTypes{{{"BOOL", 1},
                                          {"U8", 1},
                                          {"I8", 1},
                                          {"I16", 2},
                                          {"U16", 2},
                                          {"F16", 2},
                                          {"BF16", 2},
                                          {"I32", 4},
                                          {"U32", 4},
                                          {"F32", 4},
                                          {"F64", 8},
                                          {"I64", 8},
                                          {"U64", 8}}};

float float_of_half(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16, exponent = (half >> 10) & 31u, mantissa = half & 1023u;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | mantissa << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;  // subnormal
  return sign != 0 ? -magnitude : magnitude;
}

}  // namespace

size_t size_of(StoredType type) { return kTypes[static_cast<size_t>(type)].bytes; }
const char* name_of(StoredType type) { return kTypes[static_cast<size_t>(type)].name; }
bool is_weight(StoredType type) { return type == StoredType::f32 || type == StoredType::f16 || type == StoredType::bf16; }

std::optional<std::uint64_t> bytes_of(StoredType type, std::span<const std::int64_t> shape) {
  std::int64_t bytes = static_cast<std::int64_t>(size_of(type));
  for (const std::int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(bytes, size, &bytes)) return std::nullopt;
  }
  return static_cast<std::uint64_t>(bytes);
}

bool read_floats(const InputFile& file, std::uint64_t offset, StoredType type, std::span<float> out) {
  if (type == StoredType::f32) return file.read(offset, std::as_writable_bytes(out));
  std::vector<std::uint16_t> piece(std::min<size_t>(out.size(), 1 << 16));
  for (size_t done = 0; done < out.size();) {
    const auto now = std::span(piece).first(std::min(piece.size(), out.size() - done));
    if (!file.read(offset + done * 2, std::as_writable_bytes(now))) return false;
    for (const std::uint16_t bits : now) out[done++] = type == StoredType::bf16 ? to_float(bf16{bits}) : float_of_half(bits);
  }
  return true;
}

}  // namespace lc
