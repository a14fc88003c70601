// genes.tsv in and out, look-up by Ensembl id, and medians from data.
#include "models/langcell/data/gene_vocabulary.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <optional>

#include "engine/atomic_file.h"
#include "engine/errors.h"

namespace lc {

namespace {

constexpr std::string_view kHeader = "token_id\tensembl_id\tgene_name\tmedian";

std::vector<std::string_view> split(std::string_view line, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const size_t end = line.find(separator);
    parts.push_back(line.substr(0, end));
    if (end == std::string_view::npos) return parts;
    line.remove_prefix(end + 1);
  }
}

template <class T>
std::optional<T> number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string_view without_version(std::string_view id) {  // ENSG00000000003.15 -> ENSG00000000003
  const size_t dot = id.rfind('.');
  if (dot == std::string_view::npos || dot + 1 == id.size() || !id.starts_with("ENS")) return id;
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  return std::all_of(id.begin() + static_cast<std::ptrdiff_t>(dot) + 1, id.end(), is_digit) ? id.substr(0, dot) : id;
}

struct Row {
  std::int32_t token = 0;
  Gene gene;
  std::string where;
};

Row parse_row(std::string_view line, std::string where) {
  const auto cells = split(line, '\t');
  if (cells.size() != 4) throw DataError(fmt::format("{}: wanted 4 columns separated by tabs, got {}", where, cells.size()));
  const auto token = number<std::int32_t>(cells[0]);
  if (!token || *token < 0) throw DataError(fmt::format("{}: token_id '{}' is not a number from 0", where, cells[0]));
  Row row{*token, {std::string(cells[1]), std::string(cells[2]), 0}, std::move(where)};
  if (row.token < GeneVocabulary::first_gene) {
    const std::string_view wanted = row.token == GeneVocabulary::pad ? "<pad>" : "<mask>";
    if (cells[1] != wanted) throw DataError(fmt::format("{}: token {} must be {}, got '{}'", row.where, row.token, wanted, cells[1]));
    return row;
  }
  if (cells[1].empty() || cells[1].front() == '<')
    throw DataError(fmt::format("{}: '{}' is not a gene; <cls> is added by the program and never a row", row.where, cells[1]));
  const auto median = number<double>(cells[3]);
  if (!median || !std::isfinite(*median) || *median <= 0)
    throw DataError(fmt::format("{}: the median of {} must be a number above 0, got '{}'", row.where, cells[1], cells[3]));
  row.gene.median = *median;
  return row;
}

}  // namespace

GeneVocabulary::GeneVocabulary(std::vector<Gene> genes) : genes_(std::move(genes)) {
  token_of_.reserve(genes_.size());
  for (size_t i = 0; i < genes_.size(); ++i) {
    if (!(genes_[i].median > 0) || !std::isfinite(genes_[i].median))
      throw DataError(
          fmt::format("gene vocabulary: the median of {} must be a number above 0, got {}", genes_[i].ensembl_id, genes_[i].median));
    const std::string key(without_version(genes_[i].ensembl_id));
    if (!token_of_.emplace(key, static_cast<std::int32_t>(i) + first_gene).second)
      throw DataError(fmt::format("gene vocabulary: {} occurs twice", key));
  }
}

GeneVocabulary GeneVocabulary::read(const std::filesystem::path& path) { return parse(read_file(path), path.string()); }

GeneVocabulary GeneVocabulary::parse(std::string_view tsv, std::string_view where) {
  std::vector<Row> rows;
  size_t line_number = 0;
  while (!tsv.empty()) {
    const size_t end = tsv.find('\n');
    std::string_view line = tsv.substr(0, end);
    tsv.remove_prefix(end == std::string_view::npos ? tsv.size() : end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    std::string place = fmt::format("{}:{}", where, ++line_number);
    if (line_number == 1) {
      if (line != kHeader) throw DataError(place + ": wanted the header 'token_id ensembl_id gene_name median', separated by tabs");
      continue;
    }
    if (!line.empty()) rows.push_back(parse_row(line, std::move(place)));
  }
  std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) { return a.token < b.token; });
  std::unordered_map<std::string_view, std::string_view> seen;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (static_cast<size_t>(rows[i].token) != i)
      throw DataError(fmt::format("{}: token ids must be 0, 1, 2, … each once; wanted {}, got {}", rows[i].where, i, rows[i].token));
    const auto [first, added] = seen.emplace(without_version(rows[i].gene.ensembl_id), rows[i].where);
    if (!added)
      throw DataError(fmt::format("{}: {} is there already (line {})", rows[i].where, first->first, split(first->second, ':').back()));
  }
  if (rows.size() <= first_gene) throw DataError(fmt::format("{}: no genes: wanted <pad>, <mask> and at least one gene", where));
  std::vector<Gene> genes;
  for (size_t i = first_gene; i < rows.size(); ++i) genes.push_back(rows[i].gene);
  return GeneVocabulary(std::move(genes));
}

std::string GeneVocabulary::tsv() const {
  std::string out = fmt::format("{}\n0\t<pad>\t\t\n1\t<mask>\t\t\n", kHeader);
  for (size_t i = 0; i < genes_.size(); ++i)
    fmt::format_to(std::back_inserter(out), "{}\t{}\t{}\t{}\n", i + first_gene, genes_[i].ensembl_id, genes_[i].name, genes_[i].median);
  return out;
}

void GeneVocabulary::write(const std::filesystem::path& path) const { write_file(path, tsv()); }

std::int32_t GeneVocabulary::token_of(std::string_view ensembl_id) const {
  const auto found = token_of_.find(without_version(ensembl_id));
  return found == token_of_.end() ? -1 : found->second;
}

std::vector<double> GeneVocabulary::medians() const {
  std::vector<double> medians(static_cast<size_t>(size()), 1.0);
  for (size_t i = 0; i < genes_.size(); ++i) medians[i + first_gene] = genes_[i].median;
  return medians;
}

std::string GeneVocabulary::hash() const {
  std::string text;
  for (size_t i = 0; i < genes_.size(); ++i)
    fmt::format_to(std::back_inserter(text), "{}\t{}\t{}\n", i + first_gene, without_version(genes_[i].ensembl_id), genes_[i].median);
  return sha256_of(text);
}

void MedianBuilder::begin_matrix(std::span<const std::string> ensembl_ids, std::span<const std::string> names) {
  gene_of_column_.assign(ensembl_ids.size(), -1);
  for (size_t column = 0; column < ensembl_ids.size(); ++column) {
    const std::string id(without_version(ensembl_ids[column]));
    if (id.empty()) continue;
    const auto [entry, is_new] = gene_of_id_.emplace(id, static_cast<std::int32_t>(ids_.size()));
    if (is_new) {
      std::string name = column < names.size() && names[column] != ensembl_ids[column] ? names[column] : std::string();
      std::erase_if(name, [](char c) { return c == '\t' || c == '\n' || c == '\r'; });
      ids_.push_back(id);
      values_.push_back({std::move(name), {}});
    }
    gene_of_column_[column] = entry->second;
  }
  sum_of_gene_.assign(ids_.size(), 0.0f);
}

void MedianBuilder::add(const CountBlock& block) {
  const std::vector<float> n_counts = n_counts_of(block);
  std::vector<std::int32_t> touched;
  for (size_t cell = 0; cell < n_counts.size(); ++cell) {
    touched.clear();
    for (auto i = static_cast<size_t>(block.indptr[cell]); i < static_cast<size_t>(block.indptr[cell + 1]); ++i) {
      const std::int32_t gene = gene_of_column_.at(static_cast<size_t>(block.columns[i]));
      if (gene < 0 || block.counts[i] == 0) continue;
      float& sum = sum_of_gene_[static_cast<size_t>(gene)];
      if (sum == 0) touched.push_back(gene);
      sum += block.counts[i];
    }
    for (const std::int32_t gene : touched) {
      float& sum = sum_of_gene_[static_cast<size_t>(gene)];
      values_[static_cast<size_t>(gene)].cp10k.push_back(sum / n_counts[cell] * 10000.0f);
      sum = 0;
    }
    held_ += touched.size();
  }
}

GeneVocabulary MedianBuilder::finish() {
  std::vector<size_t> order(ids_.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return ids_[a] < ids_[b]; });
  std::vector<Gene> genes;
  for (const size_t i : order) {
    std::vector<float>& v = values_[i].cp10k;
    if (v.empty()) continue;
    const auto middle = v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2);
    std::nth_element(v.begin(), middle, v.end());
    double median = *middle;
    if (v.size() % 2 == 0) median = (median + *std::max_element(v.begin(), middle)) / 2;
    genes.push_back({ids_[i], values_[i].name, median});
  }
  if (genes.empty()) throw DataError("gene vocabulary: no gene with an Ensembl id has a count in any cell");
  return GeneVocabulary(std::move(genes));
}

}  // namespace lc
