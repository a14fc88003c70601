// Chunks of a dataset as bytes of its file: filters undone, numbers converted, without the library and on all threads.
#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "engine/hdf5/types.h"

namespace lc::h5 {

// One piece's bytes as they were before its filters; `size` of them. DataError naming `where` when that is not what comes out.
std::vector<std::byte> unfiltered(std::span<const std::byte> stored, const H5Layout& layout, std::uint32_t skipped, size_t size,
                                  const std::string& where);
bool knows_filters(const H5Layout& layout);

struct Conversion {  // as C casts do, but clamped at the range; what is no number becomes the lowest (unsigned: the largest) value
  H5Item from, to;
};
void convert(Conversion c, const std::byte* from, size_t count, std::byte* to);

void read_exactly(int descriptor, std::uint64_t offset, std::span<std::byte> out, const std::string& where);  // DataError when cut short

struct Grid {  // a dataset of one or two axes, cut into chunks
  H5Shape shape, chunk;
  std::uint64_t chunks_of_row_band() const;  // chunks side by side that together hold chunk[0] whole rows
  std::uint64_t chunk_items() const;
  // Values of chunk `number` that lie in rows [begin, end) to their places in `out`, which holds those rows.
  void copy(std::uint64_t number, std::span<const std::byte> values, H5Range rows, Conversion c, std::byte* out) const;
};

}  // namespace lc::h5
