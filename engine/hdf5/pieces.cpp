#include "engine/hdf5/pieces.h"

#include <fmt/format.h>
#include <libdeflate.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "engine/errors.h"
extern "C" {
#include <liblzf/lzf.h>
}

namespace lc::h5 {

namespace {

[[noreturn]] void damaged(const std::string& where, std::string_view what) {
  throw DataError(fmt::format("{}: a chunk of it {}; the file is damaged, copy or download it again", where, what));
}

struct Inflater {
  libdeflate_decompressor* const state = libdeflate_alloc_decompressor();
  Inflater() = default;
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;
  ~Inflater() { libdeflate_free_decompressor(state); }
};

std::vector<std::byte> inflate(std::span<const std::byte> in, size_t size, const std::string& where) {
  thread_local const Inflater inflater;
  std::vector<std::byte> out(size);
  size_t got = 0;
  if (!inflater.state) throw std::bad_alloc();
  if (libdeflate_zlib_decompress(inflater.state, in.data(), in.size(), out.data(), out.size(), &got) != LIBDEFLATE_SUCCESS || got != size)
    damaged(where, "cannot be decompressed");
  return out;
}

std::vector<std::byte> expand(std::span<const std::byte> in, size_t size, const std::string& where) {
  std::vector<std::byte> out(size);
  if (in.size() > std::numeric_limits<unsigned>::max() || size > std::numeric_limits<unsigned>::max() ||
      lzf_decompress(in.data(), static_cast<unsigned>(in.size()), out.data(), static_cast<unsigned>(size)) != size)
    damaged(where, "cannot be decompressed");
  return out;
}

std::vector<std::byte> unshuffle(std::span<const std::byte> in, size_t width) {
  std::vector<std::byte> out(in.size());
  const size_t items = width > 0 ? in.size() / width : 0;
  for (size_t b = 0; b < width; ++b) {
    const std::byte* from = in.data() + b * items;
    std::byte* to = out.data() + b;
    for (size_t i = 0; i < items; ++i) to[i * width] = from[i];
  }
  std::copy(in.begin() + static_cast<std::ptrdiff_t>(items * width), in.end(), out.begin() + static_cast<std::ptrdiff_t>(items * width));
  return out;
}

template <class From, class To>
To cast(From value) {
  if constexpr (std::is_floating_point_v<To>) {
    return static_cast<To>(value);
  } else if constexpr (std::is_floating_point_v<From>) {
    if (std::isnan(value)) return std::is_signed_v<To> ? std::numeric_limits<To>::lowest() : std::numeric_limits<To>::max();
    if (value >= static_cast<From>(std::numeric_limits<To>::max())) return std::numeric_limits<To>::max();
    if (value <= static_cast<From>(std::numeric_limits<To>::lowest())) return std::numeric_limits<To>::lowest();
    return static_cast<To>(value);
  } else {
    if (std::cmp_greater(value, std::numeric_limits<To>::max())) return std::numeric_limits<To>::max();
    if (std::cmp_less(value, std::numeric_limits<To>::lowest())) return std::numeric_limits<To>::lowest();
    return static_cast<To>(value);
  }
}

template <class From, class To>
void convert_all(const std::byte* from, size_t count, std::byte* to) {
  if constexpr (std::is_same_v<From, To>) {
    std::memcpy(to, from, count * sizeof(To));
  } else {
    for (size_t i = 0; i < count; ++i) {
      From value;
      std::memcpy(&value, from + i * sizeof(From), sizeof value);
      const To result = cast<From, To>(value);
      std::memcpy(to + i * sizeof(To), &result, sizeof result);
    }
  }
}

template <class F>
void with_type(H5Item item, F f) {
  switch (item) {
    case H5Item::f32:
      return f(float{});
    case H5Item::f64:
      return f(double{});
    case H5Item::i8:
      return f(std::int8_t{});
    case H5Item::u8:
      return f(std::uint8_t{});
    case H5Item::i16:
      return f(std::int16_t{});
    case H5Item::u16:
      return f(std::uint16_t{});
    case H5Item::i32:
      return f(std::int32_t{});
    case H5Item::u32:
      return f(std::uint32_t{});
    case H5Item::i64:
      return f(std::int64_t{});
    case H5Item::u64:
      return f(std::uint64_t{});
    case H5Item::boolean:
      break;
  }
  throw ShapeError("hdf5: truth values are not numbers to be converted");
}

}  // namespace

bool knows_filters(const H5Layout& layout) {
  return std::all_of(layout.filters.begin(), layout.filters.end(),
                     [](const H5Filter& f) { return f.id == kH5Deflate || f.id == kH5Shuffle || f.id == kH5Lzf; });
}

std::vector<std::byte> unfiltered(std::span<const std::byte> stored, const H5Layout& layout, std::uint32_t skipped, size_t size,
                                  const std::string& where) {
  std::vector<std::byte> held;
  for (size_t i = layout.filters.size(); i-- > 0;) {
    if (i < 32 && (skipped >> i & 1u)) continue;
    const H5Filter& filter = layout.filters[i];
    if (filter.id == kH5Deflate)
      held = inflate(stored, size, where);
    else if (filter.id == kH5Lzf)
      held = expand(stored, size, where);
    else
      held = unshuffle(stored, filter.values.empty() ? 1 : filter.values[0]);
    stored = held;
  }
  if (stored.size() != size) damaged(where, fmt::format("holds {} bytes, wanted {}", stored.size(), size));
  return held.empty() ? std::vector<std::byte>(stored.begin(), stored.end()) : held;
}

void convert(Conversion c, const std::byte* from, size_t count, std::byte* to) {
  with_type(c.from, [&]<class From>(From) { with_type(c.to, [&]<class To>(To) { convert_all<From, To>(from, count, to); }); });
}

void read_exactly(int descriptor, std::uint64_t offset, std::span<std::byte> out, const std::string& where) {
  while (!out.empty()) {
    const ssize_t got = pread(descriptor, out.data(), out.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw DataError(fmt::format("{}: cannot be read: {}", where, std::strerror(errno)));
    if (got == 0) throw DataError(fmt::format("{}: the file ends before its data does; copy or download it again", where));
    out = out.subspan(static_cast<size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
}

std::uint64_t Grid::chunks_of_row_band() const {
  std::uint64_t count = 1;
  for (size_t axis = 1; axis < shape.size(); ++axis) count *= (shape[axis] + chunk[axis] - 1) / chunk[axis];
  return count;
}

std::uint64_t Grid::chunk_items() const {
  std::uint64_t items = 0;
  return __builtin_mul_overflow(chunk[0], row_items(chunk), &items) ? ~std::uint64_t{0} : items;
}

void Grid::copy(std::uint64_t number, std::span<const std::byte> values, H5Range rows, Conversion c, std::byte* out) const {
  const std::uint64_t across = chunks_of_row_band(), from_width = bytes_of(c.from), to_width = bytes_of(c.to);
  const std::uint64_t top = number / across * chunk[0], left = shape.size() == 2 ? number % across * chunk[1] : 0;
  const std::uint64_t row = row_items(shape), chunk_row = row_items(chunk);
  const std::uint64_t begin = std::max(rows.begin, top), end = std::min({rows.end, top + chunk[0], shape[0]});
  if (begin >= end) return;
  const std::uint64_t width = std::min(chunk_row, row - left);
  if (row == 1 && chunk_row == 1)
    return convert(c, values.data() + (begin - top) * from_width, end - begin, out + (begin - rows.begin) * to_width);
  for (std::uint64_t at = begin; at < end; ++at)
    convert(c, values.data() + (at - top) * chunk_row * from_width, width, out + ((at - rows.begin) * row + left) * to_width);
}

}  // namespace lc::h5
