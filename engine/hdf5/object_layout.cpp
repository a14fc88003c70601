// How datasets lie in their file: a plan by which others read the bytes without the library.
#include <algorithm>
#include <limits>

#include "engine/hdf5/handles.h"

namespace lc {

using namespace h5;

namespace {

std::optional<H5Item> stored_item(hid_t dataset) {
  const Id type(H5Dget_type(dataset));
  const std::pair<hid_t, H5Item> known[] = {{H5T_IEEE_F32LE, H5Item::f32}, {H5T_IEEE_F64LE, H5Item::f64}, {H5T_STD_I8LE, H5Item::i8},
                                            {H5T_STD_U8LE, H5Item::u8},    {H5T_STD_I16LE, H5Item::i16},  {H5T_STD_U16LE, H5Item::u16},
                                            {H5T_STD_I32LE, H5Item::i32},  {H5T_STD_U32LE, H5Item::u32},  {H5T_STD_I64LE, H5Item::i64},
                                            {H5T_STD_U64LE, H5Item::u64}};
  for (const auto& [file_type, item] : known)
    if (H5Tequal(type, file_type) > 0) return item;
  return std::nullopt;
}

std::vector<H5Filter> filters_of(hid_t creation) {
  std::vector<H5Filter> filters;
  for (int i = 0; i < std::max(H5Pget_nfilters(creation), 0); ++i) {
    unsigned flags = 0, configuration = 0, values[16] = {};
    size_t count = std::size(values);
    const H5Z_filter_t filter = H5Pget_filter2(creation, static_cast<unsigned>(i), &flags, &count, values, 0, nullptr, &configuration);
    filters.push_back({filter, {values, values + std::min(count, std::size(values))}});
  }
  return filters;
}

}  // namespace

std::string h5::kept_elsewhere(hid_t dataset) {
  const Id creation(H5Dget_create_plist(dataset));
  if (creation >= 0 && H5Pget_layout(creation) == H5D_VIRTUAL) return "a virtual dataset, put together from other files";
  if (creation >= 0 && H5Pget_external_count(creation) != 0) return "its data are kept in another file";
  return {};
}

std::optional<std::uint64_t> H5Object::contiguous_offset() const {
  const Id creation(H5Dget_create_plist(id()));
  if (creation < 0 || H5Pget_layout(creation) != H5D_CONTIGUOUS || H5Pget_external_count(creation) != 0) return std::nullopt;
  const haddr_t offset = H5Dget_offset(id());
  return offset == HADDR_UNDEF ? std::nullopt : std::optional<std::uint64_t>(offset);
}

H5Layout H5Object::layout() const {
  H5Layout layout;
  const Id creation(H5Dget_create_plist(id()));
  if (creation < 0) return layout;
  const Id file(H5Iget_file_id(id())), of_file(H5Fget_create_plist(file));
  hsize_t before = 0;  // bytes of something else at the start of the file shift all addresses
  if (of_file < 0 || H5Pget_userblock(of_file, &before) < 0 || before != 0) return layout;
  layout.item = stored_item(id());
  layout.offset = contiguous_offset();
  if (H5Pget_layout(creation) != H5D_CHUNKED) return layout;
  hsize_t chunk[H5S_MAX_RANK];
  layout.chunk.assign(chunk, chunk + std::max(H5Pget_chunk(creation, H5S_MAX_RANK, chunk), 0));
  layout.filters = filters_of(creation);
  return layout;
}

H5Facts H5Object::facts() const { return {kind(), shape(), layout()}; }

std::vector<H5Piece> H5Object::pieces(std::uint64_t first, std::uint64_t end) const {
  const H5Shape extent = shape(), chunk = layout().chunk;
  constexpr std::uint64_t kMost = 1 << 20;
  if (chunk.empty()) cannot_read(*this, "its layout");  // it was there when the question was made
  if (chunk.size() != extent.size() || end < first || end - first > kMost)
    throw ShapeError(fmt::format("hdf5: {}: wanted chunks {} to {} of a chunked dataset", where(), first, end));
  std::vector<H5Piece> pieces;
  for (std::uint64_t number = first; number < end; ++number) {
    hsize_t at[H5S_MAX_RANK] = {};
    std::uint64_t rest = number;
    for (size_t axis = chunk.size(); axis-- > 0;) {
      const std::uint64_t along = chunk[axis] == 0 ? 0 : (extent[axis] + chunk[axis] - 1) / chunk[axis];
      if (along == 0 || (axis == 0 && rest >= along)) throw ShapeError(fmt::format("hdf5: {}: has no chunk {}", where(), number));
      at[axis] = rest % along * chunk[axis];
      rest /= along;
    }
    unsigned skipped = 0;
    haddr_t offset = HADDR_UNDEF;
    hsize_t bytes = 0;
    if (H5Dget_chunk_info_by_coord(id(), at, &skipped, &offset, &bytes) < 0) cannot_read(*this, "its index of chunks");
    pieces.push_back({offset, bytes, skipped});
  }
  return pieces;
}

}  // namespace lc
