// Numbers of a dataset: from the bytes of the file where their layout is plain, else by the reader of files.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "engine/errors.h"
#include "engine/hdf5/pieces.h"
#include "engine/hdf5/remote.h"
#include "kernels/cpu/dispatch.h"

namespace lc {

using h5::Verb;
using kernels::parallel_for;

namespace {

constexpr std::uint64_t kLargestChunk = std::uint64_t{1} << 30;
constexpr std::uint64_t kKept = std::uint64_t{256} << 20;  // bytes of chunks held for the next read
constexpr std::uint64_t kWorthAThread = 128 << 10;         // bytes
constexpr std::uint64_t kSmall = std::uint64_t{64} << 20;  // bytes that any file may claim
constexpr std::uint64_t kMostPieces = 1 << 20;

}  // namespace

// A damaged extent is noticed before anybody asks for the memory: no compression that is read here gives back more than deflate's 1,032
// bytes for one.
void Hdf5::require_plausible(const H5Facts& facts) const {
  if (file_->how != H5Open::read || facts.shape.empty()) return;
  const std::uint64_t bytes = facts.layout.item ? bytes_of(*facts.layout.item) : facts.kind == H5Kind::text ? 4 : 1;
  const std::uint64_t most = kSmall + (facts.layout.filters.empty() ? 1 : 1032) * static_cast<std::uint64_t>(file_->size);
  std::uint64_t items = row_items(facts.shape);
  if (__builtin_mul_overflow(items, facts.shape[0], &items) || items > most / bytes)
    throw DataError(fmt::format("{}: claims {} rows of {} values, more than the file can hold; the file is damaged", where(),
                                facts.shape[0], row_items(facts.shape)));
}

std::uint64_t Hdf5::items_in(std::uint64_t begin, std::uint64_t end) const {
  const H5Facts f = facts();
  require_plausible(f);
  const std::uint64_t all = f.shape.empty() ? 1 : f.shape[0];
  std::uint64_t items = 0;
  if (end < begin || end > all) throw DataError(fmt::format("{}: wanted rows {} to {}, it has {}", where(), begin, end, all));
  if (__builtin_mul_overflow(end - begin, row_items(f.shape), &items))
    throw ShapeError(fmt::format("hdf5: {}: wanted {} rows of {} values at once", where(), end - begin, row_items(f.shape)));
  return items;
}

void Hdf5::read_items(H5Item item, std::uint64_t begin, std::uint64_t end, void* out, size_t room) const {
  if (!remote_->dataset) throw DataError(fmt::format("{}: wanted numbers, found a group", where()));
  const H5Kind what = facts().kind;
  if (what != H5Kind::integer && what != H5Kind::floating && what != H5Kind::boolean)
    throw DataError(fmt::format("{}: wanted numbers, found {}", where(), what == H5Kind::text ? "text" : "another type"));
  const std::uint64_t items = items_in(begin, end);
  if (room != items) throw ShapeError(fmt::format("hdf5: {}: wanted room for {} items, got {}", where(), items, room));
  if (items == 0) return;
  auto* to = static_cast<std::byte*>(out);
  if (read_here(item, {begin, end}, to)) return;
  const std::uint64_t width = row_items(facts().shape), rows = std::max<std::uint64_t>(kBytesAtOnce / bytes_of(item) / width, 1);
  for (std::uint64_t from = begin; from < end; from += rows) {
    const auto bytes = ask<std::vector<std::byte>>(Verb::read, item, from, std::min(from + rows, end));
    if (bytes.size() != (std::min(from + rows, end) - from) * width * bytes_of(item))
      throw DataError(fmt::format("{}: its reader gave {} bytes too few or too many; the file is damaged", where(), bytes.size()));
    std::copy(bytes.begin(), bytes.end(), to + (from - begin) * width * bytes_of(item));
  }
}

bool Hdf5::read_here(H5Item item, H5Range rows, std::byte* out) const {
  const H5Facts f = facts();
  const H5Layout& layout = f.layout;
  if (!layout.item || item == H5Item::boolean || f.shape.empty() || f.shape.size() > 2) return false;
  if (layout.offset) return read_piece(item, rows, out), true;
  if (layout.chunk.size() != f.shape.size() || !h5::knows_filters(layout)) return false;
  if (std::find(layout.chunk.begin(), layout.chunk.end(), 0) != layout.chunk.end()) return false;
  return read_chunks(item, rows, out);
}

void Hdf5::read_piece(H5Item item, H5Range rows, std::byte* out) const {
  const H5Facts f = facts();
  const std::uint64_t width = row_items(f.shape), stored = bytes_of(*f.layout.item), wanted = bytes_of(item);
  const std::uint64_t first = rows.begin * width, count = (rows.end - rows.begin) * width;
  const std::string place = where();
  parallel_for(static_cast<std::int64_t>(count), 1 << 20, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    const auto from = static_cast<std::uint64_t>(begin), n = static_cast<std::uint64_t>(end - begin);
    const std::uint64_t offset = *f.layout.offset + (first + from) * stored;
    if (item == *f.layout.item) return h5::read_exactly(file_->descriptor, offset, std::span(out + from * wanted, n * wanted), place);
    std::vector<std::byte> bytes(n * stored);
    h5::read_exactly(file_->descriptor, offset, bytes, place);
    h5::convert({*f.layout.item, item}, bytes.data(), n, out + from * wanted);
  });
}

bool Hdf5::read_chunks(H5Item item, H5Range rows, std::byte* out) const {
  const H5Facts f = facts();
  const h5::Grid grid{f.shape, f.layout.chunk};
  const std::uint64_t band = grid.chunks_of_row_band(), side = grid.chunk[0];
  const std::uint64_t first = rows.begin / side * band, end = (rows.end + side - 1) / side * band;
  const std::uint64_t chunk_bytes = grid.chunk_items() > kLargestChunk ? ~std::uint64_t{0} : grid.chunk_items() * bytes_of(*f.layout.item);
  if (end - first > kMostPieces || chunk_bytes > kLargestChunk) return false;
  const std::lock_guard lock(remote_->mutex);
  std::map<std::uint64_t, std::vector<std::byte>> held = std::exchange(remote_->chunks, {});
  const auto pieces = ask<std::vector<H5Piece>>(Verb::pieces, first, end);
  if (pieces.size() != end - first) throw DataError(fmt::format("{}: its index of chunks is damaged", where()));
  for (size_t i = 0; i < pieces.size(); ++i)
    if (pieces[i].offset == ~std::uint64_t{0} || pieces[i].bytes > 2 * kLargestChunk) return false;
  const bool keeps = rows.end % side != 0 && rows.end < f.shape[0] && band * chunk_bytes <= kKept;
  const std::string place = where();
  std::vector<std::vector<std::byte>> kept(keeps ? band : 0);
  const std::uint64_t at_once = std::max<std::uint64_t>(kWorthAThread / std::max<std::uint64_t>(chunk_bytes, 1), 1);
  parallel_for(static_cast<std::int64_t>(pieces.size()), static_cast<std::int64_t>(at_once),
               [&](std::int64_t begin, std::int64_t stop, std::int64_t) {
                 for (std::int64_t i = begin; i < stop; ++i) {
                   const std::uint64_t number = first + static_cast<std::uint64_t>(i);
                   std::vector<std::byte> values;
                   if (const auto there = held.find(number); there != held.end()) {
                     values = std::move(there->second);
                   } else {
                     const H5Piece& piece = pieces[static_cast<size_t>(i)];
                     std::vector<std::byte> stored(piece.bytes);
                     h5::read_exactly(file_->descriptor, piece.offset, stored, place);
                     values = h5::unfiltered(stored, f.layout, piece.skipped_filters, chunk_bytes, place);
                   }
                   grid.copy(number, values, rows, {*f.layout.item, item}, out);
                   if (keeps && number >= end - band) kept[number - (end - band)] = std::move(values);
                 }
               });
  for (size_t i = 0; i < kept.size(); ++i) remote_->chunks.emplace(end - band + i, std::move(kept[i]));
  return true;
}

}  // namespace lc
