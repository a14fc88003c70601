#include "tools/anndata/matrix_market.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <numeric>

#include "engine/errors.h"
#include "tools/anndata/text_lines.h"

namespace lc {
namespace {

struct Header {
  std::uint64_t genes = 0, cells = 0, entries = 0;
  bool pattern = false;
};

class Held final : public CellMatrix {
 public:
  Held(CsrBlock all, std::uint64_t genes) : CellMatrix(all.rows(), genes, "MTX"), all_(std::move(all)) {}
  CsrBlock read_rows(std::uint64_t begin, std::uint64_t end) const override {
    CsrBlock block;
    block.first = begin;
    const std::int64_t from = all_.offsets[begin], to = all_.offsets[end];
    for (std::uint64_t row = begin; row <= end; ++row) block.offsets.push_back(all_.offsets[row] - from);
    block.genes.assign(all_.genes.begin() + from, all_.genes.begin() + to);
    block.values.assign(all_.values.begin() + from, all_.values.begin() + to);
    return block;
  }

 private:
  CsrBlock all_;
};

void skip_spaces(std::string_view& s) { s.remove_prefix(std::min(s.find_first_not_of(" \t"), s.size())); }

template <class T>
T number(std::string_view& s, const TextLines& lines, const char* what) {
  skip_spaces(s);
  T value{};
  const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), value);
  if (error != std::errc() || (end != s.data() + s.size() && *end != ' ' && *end != '\t'))
    throw DataError(fmt::format("{}: '{}' where {} is wanted", lines.where(), s.substr(0, 40), what));
  s.remove_prefix(static_cast<size_t>(end - s.data()));
  return value;
}

Header header_of(TextLines& lines) {
  Header header;
  std::string_view line;
  if (!lines.next(line) || !line.starts_with("%%MatrixMarket"))
    throw DataError(fmt::format("{}: does not begin with '%%MatrixMarket'", lines.where()));
  std::string kind(line);
  std::transform(kind.begin(), kind.end(), kind.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  header.pattern = kind.find(" pattern") != std::string::npos;
  if (kind.find(" coordinate") == std::string::npos || kind.find(" general") == std::string::npos ||
      kind.find(" complex") != std::string::npos)
    throw DataError(fmt::format("{}: wanted 'matrix coordinate integer general' (or real), found '{}'", lines.where(), line.substr(0, 80)));
  do {
    if (!lines.next(line)) throw DataError(fmt::format("{}: ends before the line of sizes", lines.where()));
  } while (line.empty() || line.front() == '%');
  header.genes = number<std::uint64_t>(line, lines, "the number of genes"),
  header.cells = number<std::uint64_t>(line, lines, "the number of cells");
  header.entries = number<std::uint64_t>(line, lines, "the number of entries");
  if (std::max(header.genes, header.cells) > static_cast<std::uint64_t>(std::numeric_limits<std::int32_t>::max()))
    throw DataError(fmt::format("{}: {} × {} is more than 2^31 rows or columns", lines.where(), header.genes, header.cells));
  return header;
}

struct Entries {
  std::vector<std::int32_t> cells, genes;
  std::vector<float> values;
};

Entries entries_of(TextLines& lines, const Header& header) {
  constexpr std::uint64_t kTrusted = std::uint64_t{1} << 24;  // what the file claims is not yet there
  Entries all;
  for (auto* v : {&all.cells, &all.genes}) v->reserve(std::min(header.entries, kTrusted));
  all.values.reserve(std::min(header.entries, kTrusted));
  std::string_view line;
  while (lines.next(line)) {
    skip_spaces(line);
    if (line.empty()) continue;
    if (all.cells.size() == header.entries)
      throw DataError(fmt::format("{}: more entries than the {} of the line of sizes", lines.where(), header.entries));
    const auto gene = number<std::uint64_t>(line, lines, "the number of a gene"),
               cell = number<std::uint64_t>(line, lines, "the number of a cell");
    if (gene < 1 || gene > header.genes || cell < 1 || cell > header.cells)
      throw DataError(fmt::format("{}: gene {} of {}, cell {} of {}: outside", lines.where(), gene, header.genes, cell, header.cells));
    all.genes.push_back(static_cast<std::int32_t>(gene - 1)), all.cells.push_back(static_cast<std::int32_t>(cell - 1));
    all.values.push_back(header.pattern ? 1.0f : number<float>(line, lines, "a count"));
    skip_spaces(line);
    if (!line.empty()) throw DataError(fmt::format("{}: '{}' behind the count", lines.where(), line.substr(0, 40)));
  }
  if (all.cells.size() != header.entries)
    throw DataError(
        fmt::format("{}: {} entries, the line of sizes says {}; the file is cut off", lines.where(), all.cells.size(), header.entries));
  return all;
}

}  // namespace

std::unique_ptr<CellMatrix> read_matrix_market(const std::filesystem::path& path) {
  TextLines lines(path);
  const Header header = header_of(lines);
  Entries entries = entries_of(lines, header);
  CsrBlock all;
  all.offsets.assign(header.cells + 1, 0);
  for (const std::int32_t cell : entries.cells) ++all.offsets[static_cast<size_t>(cell) + 1];
  std::partial_sum(all.offsets.begin(), all.offsets.end(), all.offsets.begin());
  if (std::is_sorted(entries.cells.begin(), entries.cells.end())) {
    all.genes = std::move(entries.genes), all.values = std::move(entries.values);
  } else {
    all.genes.resize(entries.genes.size()), all.values.resize(entries.values.size());
    std::vector<std::int64_t> next(all.offsets.begin(), all.offsets.end() - 1);
    for (size_t i = 0; i < entries.cells.size(); ++i) {
      const auto to = static_cast<size_t>(next[static_cast<size_t>(entries.cells[i])]++);
      all.genes[to] = entries.genes[i], all.values[to] = entries.values[i];
    }
  }
  tidy(all);
  return std::make_unique<Held>(std::move(all), header.genes);
}

}  // namespace lc
