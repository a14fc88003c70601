// The contents of datasets: whole, by rows, strings, and the copy of chosen rows.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "engine/hdf5_handles.h"

namespace lc {

using namespace h5;

namespace {

constexpr std::uint64_t kChunkItems = 65536;
constexpr size_t kCopyBytes = size_t{16} << 20;  // copy_rows holds about this much

std::uint64_t row_items(const Hdf5::Shape& shape) {
  std::uint64_t items = 1;
  for (size_t i = 1; i < shape.size(); ++i) items *= shape[i];
  return items;
}

// File and memory dataspaces of rows [begin, begin + count); a scalar is one row.
std::pair<Id, Id> spaces_of_rows(hid_t dataset, const Hdf5::Shape& shape, std::uint64_t begin, std::uint64_t count) {
  Id file(H5Dget_space(dataset));
  const hsize_t items = count * row_items(shape);
  Id memory(H5Screate_simple(1, &items, nullptr));
  if (shape.empty()) return {std::move(file), std::move(memory)};
  std::vector<hsize_t> start(shape.size(), 0), extent(shape.begin(), shape.end());
  start[0] = begin;
  extent[0] = count;
  H5Sselect_hyperslab(file, H5S_SELECT_SET, start.data(), nullptr, extent.data(), nullptr);
  return {std::move(file), std::move(memory)};
}

}  // namespace

// ---- shared with hdf5.cpp ---------------------------------------------------------------------------------------------------

hid_t h5::text_type() {
  static const hid_t type = [] {
    const hid_t made = H5Tcopy(H5T_C_S1);
    H5Tset_size(made, H5T_VARIABLE);
    H5Tset_cset(made, H5T_CSET_UTF8);
    return made;
  }();
  return type;
}

hid_t h5::bool_type() {
  static const hid_t type = [] {
    const hid_t made = H5Tenum_create(H5T_NATIVE_INT8);
    const std::int8_t no = 0, yes = 1;
    H5Tenum_insert(made, "FALSE", &no);
    H5Tenum_insert(made, "TRUE", &yes);
    return made;
  }();
  return type;
}

hid_t h5::link_creation() {
  static const hid_t properties = [] {
    const hid_t made = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(made, 1);
    H5Pset_char_encoding(made, H5T_CSET_UTF8);
    return made;
  }();
  return properties;
}

Id h5::cache_for(hid_t dataset) {
  const Id creation(H5Dget_create_plist(dataset)), type(H5Dget_type(dataset));
  if (creation < 0 || H5Pget_layout(creation) != H5D_CHUNKED) return Id();
  hsize_t chunk[H5S_MAX_RANK];
  const int rank = H5Pget_chunk(creation, H5S_MAX_RANK, chunk);
  const size_t bytes = std::accumulate(chunk, chunk + std::max(rank, 0), H5Tget_size(type), std::multiplies<size_t>());
  if (bytes <= size_t{1} << 19) return Id();  // the default of 1 MiB holds two
  Id access(H5Pcreate(H5P_DATASET_ACCESS));
  H5Pset_chunk_cache(access, 521, std::min(2 * bytes, size_t{1} << 30), 1.0);
  return access;
}

h5::StringBuffer::StringBuffer(hid_t file_type, hid_t space, size_t count)
    : type_(H5Tcopy(file_type)), space_(space), count_(count), variable_(H5Tis_variable_str(file_type) > 0) {
  width_ = variable_ ? sizeof(char*) : H5Tget_size(file_type);
  padded_ = !variable_ && H5Tget_strpad(file_type) == H5T_STR_SPACEPAD;
  bytes_.resize(count_ * width_);
}

h5::StringBuffer::~StringBuffer() {
  if (variable_ && count_ > 0) H5Dvlen_reclaim(type_, space_, H5P_DEFAULT, bytes_.data());
}

std::vector<std::string> h5::StringBuffer::take() const {
  std::vector<std::string> out(count_);
  for (size_t i = 0; i < count_; ++i) {
    const char* entry = bytes_.data() + i * width_;
    if (variable_) {
      const char* pointer = nullptr;
      std::memcpy(&pointer, entry, sizeof pointer);
      if (pointer) out[i] = pointer;
    } else {
      out[i].assign(entry, strnlen(entry, width_));
      while (padded_ && !out[i].empty() && out[i].back() == ' ') out[i].pop_back();
    }
  }
  return out;
}

// ---- what a dataset is ------------------------------------------------------------------------------------------------------

H5Kind Hdf5::kind() const {
  const Id type(H5Dget_type(id()));
  switch (H5Tget_class(type)) {
    case H5T_INTEGER:
      return H5Kind::integer;
    case H5T_FLOAT:
      return H5Kind::floating;
    case H5T_ENUM:
      return H5Kind::boolean;
    case H5T_STRING:
      return H5Kind::text;
    case H5T_REFERENCE:
      return H5Kind::reference;
    default:
      return H5Kind::other;
  }
}

size_t Hdf5::item_bytes() const {
  const Id type(H5Dget_type(id()));
  return H5Tget_size(type);
}

Hdf5::Shape Hdf5::shape() const {
  const Id space(H5Dget_space(id()));
  if (space < 0) throw DataError(fmt::format("{}: wanted a dataset, found a group", where()));
  if (H5Sget_simple_extent_type(space) == H5S_NULL) return Shape{0};
  Shape shape(static_cast<size_t>(std::max(H5Sget_simple_extent_ndims(space), 0)));
  std::vector<hsize_t> extent(shape.size());
  H5Sget_simple_extent_dims(space, extent.data(), nullptr);
  std::copy(extent.begin(), extent.end(), shape.begin());
  return shape;
}

bool Hdf5::is_null() const {
  if (!is_dataset()) return false;
  const Id space(H5Dget_space(id()));
  return H5Sget_simple_extent_type(space) == H5S_NULL;
}

std::uint64_t Hdf5::rows() const {
  const Shape extent = shape();
  return extent.empty() ? 1 : extent[0];
}

std::optional<std::uint64_t> Hdf5::contiguous_offset() const {
  const Id creation(H5Dget_create_plist(id()));
  if (creation < 0 || H5Pget_layout(creation) != H5D_CONTIGUOUS || H5Pget_external_count(creation) > 0) return std::nullopt;
  const haddr_t offset = H5Dget_offset(id());
  return offset == HADDR_UNDEF ? std::nullopt : std::optional<std::uint64_t>(offset);
}

// ---- reading ----------------------------------------------------------------------------------------------------------------

namespace {

// The filter without which a dataset cannot be read, as a clause; empty when all are there.
std::string missing_filter(hid_t dataset) {
  const Id creation(H5Dget_create_plist(dataset));
  for (int i = 0; i < std::max(H5Pget_nfilters(creation), 0); ++i) {
    unsigned flags = 0, configuration = 0;
    size_t values = 0;
    char name[64] = "";
    const H5Z_filter_t filter =
        H5Pget_filter2(creation, static_cast<unsigned>(i), &flags, &values, nullptr, sizeof name, name, &configuration);
    if (filter >= 0 && H5Zfilter_avail(filter) <= 0)
      return fmt::format("{} (HDF5 filter {})", *name ? name : "a filter", static_cast<int>(filter));
  }
  return {};
}

}  // namespace

void Hdf5::load(std::int64_t type, std::uint64_t begin, std::uint64_t count, void* out) const {
  if (items_in(begin, begin + count) == 0) return;
  const auto [file, memory] = spaces_of_rows(id(), shape(), begin, count);
  if (H5Dread(id(), type, memory, file, H5P_DEFAULT, out) >= 0) return;
  if (const std::string filter = missing_filter(id()); !filter.empty())
    throw DataError(fmt::format("{}: compressed with {}, which this program cannot read; save the file again with gzip", where(), filter));
  cannot_read(*this, fmt::format("rows {} to {}", begin, begin + count));
}

std::int64_t Hdf5::memory_type(Item item) {
  switch (item) {
    case Item::f32:
      return H5T_NATIVE_FLOAT;
    case Item::f64:
      return H5T_NATIVE_DOUBLE;
    case Item::i8:
      return H5T_NATIVE_INT8;
    case Item::u8:
      return H5T_NATIVE_UINT8;
    case Item::i16:
      return H5T_NATIVE_INT16;
    case Item::u16:
      return H5T_NATIVE_UINT16;
    case Item::i32:
      return H5T_NATIVE_INT32;
    case Item::u32:
      return H5T_NATIVE_UINT32;
    case Item::i64:
      return H5T_NATIVE_INT64;
    case Item::u64:
      return H5T_NATIVE_UINT64;
    case Item::boolean:
      break;
  }
  return bool_type();
}

std::uint64_t Hdf5::items_in(std::uint64_t begin, std::uint64_t end) const {
  const Shape extent = shape();
  const std::uint64_t all = extent.empty() ? 1 : extent[0];
  if (end < begin || end > all) throw DataError(fmt::format("{}: wanted rows {} to {}, it has {}", where(), begin, end, all));
  return (end - begin) * row_items(extent);
}

void Hdf5::read_items(Item item, std::uint64_t begin, std::uint64_t end, void* out, size_t room) const {
  if (is_group()) throw DataError(fmt::format("{}: wanted numbers, found a group", where()));
  const H5Kind what = kind();
  if (what != H5Kind::integer && what != H5Kind::floating && what != H5Kind::boolean)
    throw DataError(fmt::format("{}: wanted numbers, found {}", where(), what == H5Kind::text ? "text" : "another type"));
  if (const std::uint64_t items = items_in(begin, end); room != items)
    throw ShapeError(fmt::format("hdf5: {}: wanted room for {} items, got {}", where(), items, room));
  load(memory_type(item), begin, end - begin, out);
}

std::vector<std::string> Hdf5::read_strings(std::uint64_t begin, std::uint64_t end) const {
  const Shape extent = shape();
  if (is_null() || begin == end) return {};
  if (kind() != H5Kind::text) throw DataError(fmt::format("{}: wanted text, found numbers or another type", where()));
  const Id type(H5Dget_type(id()));
  const hsize_t count = (end - begin) * row_items(extent);
  const Id space(H5Screate_simple(1, &count, nullptr));
  StringBuffer buffer(type, space, count);
  load(buffer.type(), begin, end - begin, buffer.data());
  return buffer.take();
}

std::vector<std::string> Hdf5::read_strings() const { return read_strings(0, rows()); }

// ---- writing ----------------------------------------------------------------------------------------------------------------

namespace {

Id creation_properties(const Hdf5::Shape& shape, const H5Storage& storage) {
  Id creation(H5Pcreate(H5P_DATASET_CREATE));
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

Hdf5 Hdf5::create_dataset(std::string_view path, std::int64_t type, const Shape& shape, const H5Storage& storage) const {
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

void Hdf5::store(std::int64_t type, std::uint64_t begin, std::uint64_t count, const void* data) const {
  const Shape extent = shape();
  if (count * row_items(extent) == 0) return;
  const auto [file, memory] = spaces_of_rows(id(), extent, begin, count);
  if (H5Dwrite(id(), type, memory, file, H5P_DEFAULT, data) < 0) cannot_write(*this, fmt::format("rows {} to {}", begin, begin + count));
}

Hdf5 Hdf5::allocate_items(Item item, std::string_view path, const Shape& shape, const H5Storage& storage) const {
  return create_dataset(path, memory_type(item), shape, storage);
}

void Hdf5::write_items(Item item, std::uint64_t begin, const void* values, size_t count) const {
  const Shape extent = shape();
  const std::uint64_t width = std::max<std::uint64_t>(row_items(extent), 1), wanted = rows();
  if (count % width != 0 || begin > wanted || count / width > wanted - begin)
    throw ShapeError(fmt::format("hdf5: {}: wanted whole rows up to {}, got {} values from row {}", where(), wanted, count, begin));
  store(memory_type(item), begin, count / width, values);
}

std::uint64_t Hdf5::extend(std::uint64_t count) const {
  std::vector<hsize_t> extent;
  for (std::uint64_t side : shape()) extent.push_back(side);
  if (extent.empty()) throw ShapeError(fmt::format("hdf5: {}: a scalar has no rows to append to", where()));
  const std::uint64_t begin = extent[0];
  extent[0] += count;
  if (H5Dset_extent(id(), extent.data()) < 0) cannot_write(*this, "more rows");
  return begin;
}

void Hdf5::append_items(Item item, const void* values, size_t count) const {
  const std::uint64_t added = count / std::max<std::uint64_t>(row_items(shape()), 1);
  if (added > 0) write_items(item, extend(added), values, count);
}

void Hdf5::append_strings(std::span<const std::string> values) const {
  if (values.empty()) return;
  std::vector<const char*> pointers(values.size());
  std::transform(values.begin(), values.end(), pointers.begin(), [](const std::string& text) { return text.c_str(); });
  store(text_type(), extend(values.size()), values.size(), pointers.data());
}

Hdf5 Hdf5::write_strings(std::string_view path, std::span<const std::string> values, const H5Storage& storage) const {
  const Hdf5 dataset = create_dataset(path, text_type(), Shape{values.size()}, storage);
  std::vector<const char*> pointers(values.size());
  std::transform(values.begin(), values.end(), pointers.begin(), [](const std::string& text) { return text.c_str(); });
  dataset.store(text_type(), 0, values.size(), pointers.data());
  return dataset;
}

Hdf5 Hdf5::write_string(std::string_view path, std::string_view value) const {
  const Hdf5 dataset = create_dataset(path, text_type(), Shape{}, {});
  const std::string copy(value);
  const char* pointer = copy.c_str();
  dataset.store(text_type(), 0, 1, &pointer);
  return dataset;
}

// ---- copying rows -----------------------------------------------------------------------------------------------------------

Hdf5 Hdf5::allocate_like(const Hdf5& source, std::string_view path, std::uint64_t rows) const {
  const Id type(H5Dget_type(source.id())), old(H5Dget_create_plist(source.id()));
  Shape extent = source.shape();
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

void Hdf5::copy_rows(const Hdf5& source, std::span<const H5Range> ranges, std::uint64_t begin) const {
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
