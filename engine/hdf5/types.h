// What is said about datasets of HDF5 files, by those who read them and by the process that does it for them.
#pragma once
#include <concepts>
#include <cstdint>
#include <optional>
#include <vector>

namespace lc {

enum class H5Bool : std::int8_t { no, yes };  // stored as h5py stores numpy's bool: an enum FALSE, TRUE over int8
enum class H5Kind : std::uint8_t { integer, floating, boolean, text, reference, other };
enum class H5Item : std::uint8_t { f32, f64, i8, u8, i16, u16, i32, u32, i64, u64, boolean };

template <class T>
concept H5Value = std::same_as<T, float> || std::same_as<T, double> || std::same_as<T, std::int8_t> || std::same_as<T, std::uint8_t> ||
    std::same_as<T, std::int16_t> || std::same_as<T, std::uint16_t> || std::same_as<T, std::int32_t> || std::same_as<T, std::uint32_t> ||
    std::same_as<T, std::int64_t> || std::same_as<T, std::uint64_t> || std::same_as<T, H5Bool>;

template <H5Value T>
constexpr H5Item h5_item() {
  if constexpr (std::same_as<T, float>)
    return H5Item::f32;
  else if constexpr (std::same_as<T, double>)
    return H5Item::f64;
  else if constexpr (std::same_as<T, std::int8_t>)
    return H5Item::i8;
  else if constexpr (std::same_as<T, std::uint8_t>)
    return H5Item::u8;
  else if constexpr (std::same_as<T, std::int16_t>)
    return H5Item::i16;
  else if constexpr (std::same_as<T, std::uint16_t>)
    return H5Item::u16;
  else if constexpr (std::same_as<T, std::int32_t>)
    return H5Item::i32;
  else if constexpr (std::same_as<T, std::uint32_t>)
    return H5Item::u32;
  else if constexpr (std::same_as<T, std::int64_t>)
    return H5Item::i64;
  else if constexpr (std::same_as<T, std::uint64_t>)
    return H5Item::u64;
  else
    return H5Item::boolean;
}
constexpr std::size_t bytes_of(H5Item item) {
  switch (item) {
    case H5Item::i8:
    case H5Item::u8:
    case H5Item::boolean:
      return 1;
    case H5Item::i16:
    case H5Item::u16:
      return 2;
    case H5Item::f32:
    case H5Item::i32:
    case H5Item::u32:
      return 4;
    case H5Item::f64:
    case H5Item::i64:
    case H5Item::u64:
      break;
  }
  return 8;
}

using H5Shape = std::vector<std::uint64_t>;  // empty: a scalar

// Values of a row, ~0 where a damaged extent makes them more than there can be.
inline std::uint64_t row_items(const H5Shape& shape) {
  std::uint64_t items = 1;
  for (std::size_t axis = 1; axis < shape.size(); ++axis)
    if (__builtin_mul_overflow(items, shape[axis], &items)) return ~std::uint64_t{0};
  return items;
}

struct H5Storage {
  int gzip = 0;                           // 0: not compressed; without gzip, chunk and grows the data are contiguous (mappable)
  std::vector<std::uint64_t> chunk = {};  // empty: chosen, about 64 Ki elements
  bool grows = false;                     // rows can be appended
};

struct H5Range {
  std::uint64_t begin, end;
};

struct H5Filter {
  std::int32_t id;  // of HDF5's registry
  std::vector<std::uint32_t> values;
};

// How a dataset of plain numbers lies in its file: in one piece, or in chunks behind filters.
struct H5Layout {
  std::optional<H5Item> item;           // as stored, little-endian; empty: another type, to be read by the library
  std::optional<std::uint64_t> offset;  // of the one piece
  H5Shape chunk;                        // empty: not in chunks
  std::vector<H5Filter> filters;        // in the order of writing
};

struct H5Facts {  // of a dataset
  H5Kind kind = H5Kind::other;
  H5Shape shape;
  H5Layout layout;
};

struct H5Piece {                                        // a chunk in the file
  std::uint64_t offset = ~std::uint64_t{0}, bytes = 0;  // offset ~0: never written
  std::uint32_t skipped_filters = 0;                    // a bit per filter
};

constexpr std::int32_t kH5Deflate = 1, kH5Shuffle = 2, kH5Lzf = 32000;

}  // namespace lc
