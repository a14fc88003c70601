// Writing datasets, and copying chosen rows of one to another.
#include <algorithm>
#include <cstring>

#include "engine/hdf5/handles.h"

namespace lc {

using namespace h5;

namespace {

constexpr std::uint64_t kChunkItems = 65536;
constexpr size_t kCopyBytes = size_t{16} << 20;  // copy_rows holds about this much

}  // namespace

namespace {

Id creation_properties(const H5Shape& shape, const H5Storage& storage) {
  Id creation(H5Pcreate(H5P_DATASET_CREATE));
  H5Pset_obj_track_times(creation, false);  // equal contents are equal bytes
  const bool empty = std::find(shape.begin(), shape.end(), 0) != shape.end();
  const bool chunked = storage.grows || storage.gzip > 0 || !storage.chunk.empty();
  if (!chunked || shape.empty() || (empty && !storage.grows)) {
    H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY);  // a place in the file even before the first row is written
    H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER);
    return creation;
  }
  std::vector<hsize_t> chunk(storage.chunk.begin(), storage.chunk.end());
  if (chunk.empty()) {
    chunk.assign(shape.begin(), shape.end());
    const std::uint64_t width = std::max<std::uint64_t>(row_items(shape), 1);
    chunk[0] = std::max<std::uint64_t>(kChunkItems / width, 1);
  }
  for (size_t i = 0; i < chunk.size(); ++i) {
    if (i > 0 || !storage.grows) chunk[i] = std::min<hsize_t>(chunk[i], shape[i]);
    chunk[i] = std::max<hsize_t>(chunk[i], 1);
  }
  H5Pset_chunk(creation, static_cast<int>(chunk.size()), chunk.data());
  if (storage.gzip > 0) H5Pset_deflate(creation, static_cast<unsigned>(storage.gzip));
  return creation;
}

}  // namespace

H5Object H5Object::create_dataset(std::string_view path, std::int64_t type, const H5Shape& shape, const H5Storage& storage) const {
  quiet();
  std::vector<hsize_t> extent(shape.begin(), shape.end()), limit = extent;
  if (storage.grows && !limit.empty()) limit[0] = H5S_UNLIMITED;
  const Id space(shape.empty() ? H5Screate(H5S_SCALAR) : H5Screate_simple(static_cast<int>(extent.size()), extent.data(), limit.data()));
  Id creation = creation_properties(shape, storage);
  if (H5Tis_variable_str(type) > 0) H5Pset_fill_time(creation, H5D_FILL_TIME_IFSET);  // never unset pointers into the heap
  const hid_t made_id = H5Dcreate2(id(), std::string(path).c_str(), type, space, link_creation(), creation, H5P_DEFAULT);
  if (made_id < 0) cannot_write(*this, fmt::format("the dataset {}", path));
  return made(path, made_id);
}

void H5Object::store(std::int64_t type, std::uint64_t begin, std::uint64_t count, const void* data) const {
  const H5Shape extent = shape();
  if (count * row_items(extent) == 0) return;
  const auto [file, memory] = spaces_of_rows(id(), extent, begin, count);
  if (H5Dwrite(id(), type, memory, file, H5P_DEFAULT, data) < 0) cannot_write(*this, fmt::format("rows {} to {}", begin, begin + count));
}

H5Object H5Object::allocate(H5Item item, std::string_view path, const H5Shape& shape, const H5Storage& storage) const {
  return create_dataset(path, memory_type(item), shape, storage);
}

void H5Object::write(H5Item item, std::uint64_t begin, std::span<const std::byte> values) const {
  const H5Shape extent = shape();
  const std::uint64_t width = std::max<std::uint64_t>(row_items(extent), 1), wanted = extent.empty() ? 1 : extent[0];
  const std::uint64_t count = values.size() / bytes_of(item);
  if (count % width != 0 || begin > wanted || count / width > wanted - begin)
    throw ShapeError(fmt::format("hdf5: {}: wanted whole rows up to {}, got {} values from row {}", where(), wanted, count, begin));
  store(memory_type(item), begin, count / width, values.data());
}

std::uint64_t H5Object::extend(std::uint64_t count) const {
  std::vector<hsize_t> extent;
  for (std::uint64_t side : shape()) extent.push_back(side);
  if (extent.empty()) throw ShapeError(fmt::format("hdf5: {}: a scalar has no rows to append to", where()));
  const std::uint64_t begin = extent[0];
  extent[0] += count;
  if (H5Dset_extent(id(), extent.data()) < 0) cannot_write(*this, "more rows");
  return begin;
}

void H5Object::append(H5Item item, std::span<const std::byte> values) const {
  const std::uint64_t added = values.size() / bytes_of(item) / std::max<std::uint64_t>(row_items(shape()), 1);
  if (added > 0) write(item, extend(added), values);
}

H5Object H5Object::allocate_strings(std::string_view path, std::uint64_t count, const H5Storage& storage) const {
  return create_dataset(path, text_type(), H5Shape{count}, storage);
}

void H5Object::write_strings(std::uint64_t begin, const std::vector<std::string>& values) const {
  std::vector<const char*> pointers(values.size());
  std::transform(values.begin(), values.end(), pointers.begin(), [](const std::string& text) { return text.c_str(); });
  store(text_type(), begin, values.size(), pointers.data());
}

void H5Object::append_strings(const std::vector<std::string>& values) const {
  if (!values.empty()) write_strings(extend(values.size()), values);
}

H5Object H5Object::write_string(std::string_view path, std::string_view value) const {
  const H5Object dataset = create_dataset(path, text_type(), H5Shape{}, {});
  const std::string copy(value);
  const char* pointer = copy.c_str();
  dataset.store(text_type(), 0, 1, &pointer);
  return dataset;
}

// ---- copying rows -----------------------------------------------------------------------------------------------------------

H5Object H5Object::allocate_like(const H5Object& source, std::string_view path, std::uint64_t rows) const {
  const Id type(H5Dget_type(source.id())), old(H5Dget_create_plist(source.id()));
  H5Shape extent = source.shape();
  if (extent.empty()) throw ShapeError(fmt::format("hdf5: {}: a scalar has no rows", source.where()));
  extent[0] = rows;
  H5Storage storage;
  if (H5Pget_layout(old) == H5D_CHUNKED) {
    hsize_t chunk[H5S_MAX_RANK];
    const int rank = H5Pget_chunk(old, H5S_MAX_RANK, chunk);
    storage.chunk.assign(chunk, chunk + std::max(rank, 0));
    unsigned flags = 0, level = 0;
    size_t one = 1;
    if (H5Pget_filter_by_id2(old, H5Z_FILTER_DEFLATE, &flags, &one, &level, 0, nullptr, nullptr) >= 0)
      storage.gzip = static_cast<int>(level);
  }
  return create_dataset(path, type, extent, storage);
}

namespace {

// Ranges read in one piece: none spans more than `budget` rows, none bridges more than `gap` rows that nobody wants.
std::vector<std::vector<H5Range>> blocks_of(std::span<const H5Range> ranges, std::uint64_t budget, std::uint64_t gap) {
  std::vector<std::vector<H5Range>> blocks;
  for (const H5Range& range : ranges) {
    for (std::uint64_t from = range.begin; from < range.end; from += budget) {
      const H5Range piece{from, std::min(from + budget, range.end)};
      const bool joins =
          !blocks.empty() && piece.end - blocks.back().front().begin <= budget && piece.begin - blocks.back().back().end < gap;
      if (!joins) blocks.emplace_back();
      blocks.back().push_back(piece);
    }
  }
  return blocks;
}

}  // namespace

void H5Object::copy_rows(const H5Object& source, const std::vector<H5Range>& ranges, std::uint64_t begin) const {
  const Id file_type(H5Dget_type(source.id())), type(H5Tget_native_type(file_type, H5T_DIR_ASCEND));
  if (type < 0) cannot_read(source, "its type");
  const bool owns_memory = H5Tis_variable_str(type) > 0 || H5Tdetect_class(type, H5T_VLEN) > 0 || H5Tdetect_class(type, H5T_COMPOUND) > 0;
  const std::uint64_t width = std::max<std::uint64_t>(row_items(source.shape()), 1);
  const size_t row_bytes = H5Tget_size(type) * width;
  std::vector<char> read, kept;
  for (const std::vector<H5Range>& block :
       blocks_of(ranges, std::max<size_t>(kCopyBytes / row_bytes, 1), std::max<size_t>(kChunkItems / width, 1))) {
    const std::uint64_t first = block.front().begin, count = block.back().end - first;
    read.resize(count * row_bytes);
    kept.clear();
    source.load(type, first, count, read.data());
    for (const H5Range& range : block) {
      const char* from = read.data() + (range.begin - first) * row_bytes;
      kept.insert(kept.end(), from, from + (range.end - range.begin) * row_bytes);
    }
    store(type, begin, kept.size() / row_bytes, kept.data());
    begin += kept.size() / row_bytes;
    const hsize_t items = count * width;
    const Id memory(H5Screate_simple(1, &items, nullptr));
    if (owns_memory) H5Dvlen_reclaim(type, memory, H5P_DEFAULT, read.data());
  }
}

}  // namespace lc
