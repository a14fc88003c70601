// What tensors in files have in common, whatever the format: a name, a type, a shape, a place; and their numbers as floats.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/input_file.h"
#include "kernels/numeric.h"

namespace lc {

// In the order of the reference implementation of safetensors, which sorts tensors by it, descending: large alignments first.
enum class StoredType : std::uint8_t { boolean, u8, i8, i16, u16, f16, bf16, i32, u32, f32, f64, i64, u64 };
size_t size_of(StoredType type);
const char* name_of(StoredType type);  // as safetensors writes it: "F32"

template <class T>
inline constexpr StoredType stored_type_of = StoredType::f32;
template <>
inline constexpr StoredType stored_type_of<bf16> = StoredType::bf16;
template <>
inline constexpr StoredType stored_type_of<double> = StoredType::f64;
template <>
inline constexpr StoredType stored_type_of<std::uint8_t> = StoredType::u8;
template <>
inline constexpr StoredType stored_type_of<std::int32_t> = StoredType::i32;
template <>
inline constexpr StoredType stored_type_of<std::int64_t> = StoredType::i64;
template <>
inline constexpr StoredType stored_type_of<std::uint64_t> = StoredType::u64;

struct StoredTensor {
  std::string name;
  StoredType type = StoredType::f32;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0, bytes = 0;  // of the data; from where is said by whoever lists it
  size_t elements() const { return static_cast<size_t>(bytes) / size_of(type); }
};

// Bytes of a tensor of this shape; nothing where a size is negative or they cannot be counted in 63 bits.
std::optional<std::uint64_t> bytes_of(StoredType type, std::span<const std::int64_t> shape);

bool is_weight(StoredType type);  // F32, F16 or BF16
// out.size() numbers of a weight's type that lie at this place. False: the file ends before.
bool read_floats(const InputFile& file, std::uint64_t offset, StoredType type, std::span<float> out);

}  // namespace lc
