// The contents of datasets: whole, by rows, strings, and the copy of chosen rows.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "engine/hdf5/handles.h"

namespace lc {

using namespace h5;

namespace {

constexpr std::uint64_t kLargestAnswer = std::uint64_t{64} << 20;  // bytes

}  // namespace

// ---- shared with object.cpp ---------------------------------------------------------------------------------------------------

std::pair<Id, Id> h5::spaces_of_rows(hid_t dataset, const H5Shape& shape, std::uint64_t begin, std::uint64_t count) {
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
  H5Pset_chunk_cache(access, 521, std::min(2 * bytes, size_t{192} << 20), 1.0);
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

H5Kind H5Object::kind() const {
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

size_t H5Object::item_bytes() const {
  const Id type(H5Dget_type(id()));
  return H5Tget_size(type);
}

H5Shape H5Object::shape() const {
  const Id space(H5Dget_space(id()));
  if (space < 0) throw DataError(fmt::format("{}: wanted a dataset, found a group", where()));
  if (H5Sget_simple_extent_type(space) == H5S_NULL) return H5Shape{0};
  H5Shape shape(static_cast<size_t>(std::max(H5Sget_simple_extent_ndims(space), 0)));
  std::vector<hsize_t> extent(shape.size());
  H5Sget_simple_extent_dims(space, extent.data(), nullptr);
  std::copy(extent.begin(), extent.end(), shape.begin());
  return shape;
}

bool H5Object::is_null() const {
  if (!is_dataset()) return false;
  const Id space(H5Dget_space(id()));
  return H5Sget_simple_extent_type(space) == H5S_NULL;
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

size_t checked_bytes(const std::string& where, std::uint64_t items, size_t width) {
  if (items > kLargestAnswer / width)
    throw DataError(fmt::format("{}: {} values at once are more than this program reads; the file is damaged", where, items));
  return items * width;
}

}  // namespace

void H5Object::load(std::int64_t type, std::uint64_t begin, std::uint64_t count, void* out) const {
  if (items_in(begin, begin + count) == 0) return;
  const auto [file, memory] = spaces_of_rows(id(), shape(), begin, count);
  if (H5Dread(id(), type, memory, file, H5P_DEFAULT, out) >= 0) return;
  if (const std::string filter = missing_filter(id()); !filter.empty())
    throw DataError(fmt::format("{}: compressed with {}, which this program cannot read; save the file again with gzip", where(), filter));
  cannot_read(*this, fmt::format("rows {} to {}", begin, begin + count));
}

std::int64_t H5Object::memory_type(H5Item item) {
  switch (item) {
    case H5Item::f32:
      return H5T_NATIVE_FLOAT;
    case H5Item::f64:
      return H5T_NATIVE_DOUBLE;
    case H5Item::i8:
      return H5T_NATIVE_INT8;
    case H5Item::u8:
      return H5T_NATIVE_UINT8;
    case H5Item::i16:
      return H5T_NATIVE_INT16;
    case H5Item::u16:
      return H5T_NATIVE_UINT16;
    case H5Item::i32:
      return H5T_NATIVE_INT32;
    case H5Item::u32:
      return H5T_NATIVE_UINT32;
    case H5Item::i64:
      return H5T_NATIVE_INT64;
    case H5Item::u64:
      return H5T_NATIVE_UINT64;
    case H5Item::boolean:
      break;
  }
  return bool_type();
}

std::uint64_t H5Object::items_in(std::uint64_t begin, std::uint64_t end) const {
  const H5Shape extent = shape();
  const std::uint64_t all = extent.empty() ? 1 : extent[0];
  if (end < begin || end > all) throw DataError(fmt::format("{}: wanted rows {} to {}, it has {}", where(), begin, end, all));
  std::uint64_t items = 0;
  if (__builtin_mul_overflow(end - begin, row_items(extent), &items))
    throw DataError(
        fmt::format("{}: {} rows of {} values are more than there can be; the file is damaged", where(), end - begin, row_items(extent)));
  return items;
}

std::vector<std::byte> H5Object::read(H5Item item, std::uint64_t begin, std::uint64_t end) const {
  std::vector<std::byte> out(checked_bytes(where(), items_in(begin, end), bytes_of(item)));
  load(memory_type(item), begin, end - begin, out.data());
  return out;
}

std::vector<std::string> H5Object::read_strings(std::uint64_t begin, std::uint64_t end) const {
  if (is_null() || begin == end) return {};
  if (kind() != H5Kind::text) throw DataError(fmt::format("{}: wanted text, found numbers or another type", where()));
  const Id type(H5Dget_type(id()));
  const hsize_t count = items_in(begin, end);
  checked_bytes(where(), count, std::max<size_t>(H5Tget_size(type), 8));
  const Id space(H5Screate_simple(1, &count, nullptr));
  StringBuffer buffer(type, space, count);
  load(buffer.type(), begin, end - begin, buffer.data());
  return buffer.take();
}

}  // namespace lc
