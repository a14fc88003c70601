// Reading a corpus. Whatever the mapped arrays are trusted for later is checked when it is opened.
#include "models/langcell/data/corpus.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "engine/errors.h"
#include "models/langcell/data/corpus_format.h"

namespace lc {

using namespace corpus_format;

std::string Funnel::json() const {
  nlohmann::ordered_json out = {
      {"read", read}, {"kept", kept}, {"dropped", nlohmann::ordered_json::object()}, {"noted", nlohmann::ordered_json::object()}};
  for (const auto& [reason, count] : dropped) out["dropped"][reason] = count;
  for (const auto& [what, count] : noted) out["noted"][what] = count;
  return out.dump();
}

Funnel Funnel::parse(std::string_view json) {
  try {
    const auto in = nlohmann::ordered_json::parse(json);
    Funnel funnel{in.at("read"), in.at("kept"), {}, {}};
    for (const auto& [reason, count] : in.at("dropped").items()) funnel.dropped.emplace_back(reason, count.get<std::uint64_t>());
    for (const auto& [what, count] : in.at("noted").items()) funnel.noted.emplace_back(what, count.get<std::uint64_t>());
    return funnel;
  } catch (const nlohmann::json::exception& error) {
    throw DataError(fmt::format("funnel of the corpus: {}", error.what()));
  }
}

void ArrayHash::add(std::string_view bytes) {
  while (!bytes.empty()) {
    const size_t part = std::min(bytes.size(), kHashBlock - block_.size());
    block_.append(bytes.substr(0, part));
    bytes.remove_prefix(part);
    if (block_.size() == kHashBlock) close_block();
  }
}

void ArrayHash::close_block() {
  blocks_ += sha256_of(block_);
  block_.clear();
}

std::string ArrayHash::finish() {
  if (!block_.empty()) close_block();
  return sha256_of(blocks_);
}

std::vector<std::filesystem::path> corpus_files(std::span<const std::filesystem::path> corpora) {
  std::vector<std::filesystem::path> files;
  for (const auto& path : corpora) {
    std::error_code unreadable;
    if (!std::filesystem::is_directory(path, unreadable)) {
      files.push_back(path);
      continue;
    }
    const auto first = files.size();
    for (const auto& entry : std::filesystem::directory_iterator(path)) {
      if (entry.path().extension() == ".h5") files.push_back(entry.path());
    }
    if (files.size() == first)
      throw DataError(fmt::format("{}: a folder without a corpus (.h5); make one with: langcell tokenize", path.string()));
    std::sort(files.begin() + static_cast<std::ptrdiff_t>(first), files.end());
  }
  return files;
}

Corpus Corpus::open(const std::filesystem::path& path, const std::shared_ptr<const GeneVocabulary>& known) {
  Hdf5 file = Hdf5::open(path);
  if (file.text_or("format", "") != kFormat)
    throw DataError(fmt::format("{}: not a corpus; make one with: langcell tokenize", path.string()));
  if (file.integer("format_version") != kVersion)
    throw DataError(fmt::format("{}: corpus format {}, this program reads {}; tokenize the cells again", path.string(),
                                file.integer("format_version"), kVersion));
  Corpus corpus(path, std::move(file), known);
  corpus.check();
  corpus.file_bytes_->release();
  return corpus;
}

Corpus::Corpus(std::filesystem::path path, Hdf5 file, const std::shared_ptr<const GeneVocabulary>& known)
    : path_(std::move(path)), file_(std::move(file)), file_bytes_(std::make_shared<const MappedFile>(path_)) {
  vocabulary_ = known && known->hash() == file_.text("vocabulary_sha256") ? known : read_genes();
  read_texts();
  read_types();
  max_genes_ = file_.integer("max_genes");
  const Hdf5 tokens = file_.at("tokens");
  tokens_ = tokens.rows(), token_bytes_ = tokens.item_bytes() == sizeof(std::uint32_t) ? sizeof(std::uint32_t) : sizeof(std::uint16_t);
  first_token_ = place_of(tokens, token_bytes_);
  offsets_ = stored<std::uint64_t>("offsets");
  text_id_ = stored<std::int32_t>("text_id");
  group_id_ = stored<std::int32_t>("group_id");
  type_id_ = stored<std::int32_t>("type_id");
}

// Where its items lie in the file, one after the other.
std::uint64_t Corpus::place_of(const Hdf5& dataset, std::size_t item_bytes) const {
  const std::uint64_t rows = dataset.rows(), size = file_bytes_->size();
  if (dataset.kind() != H5Kind::integer || dataset.item_bytes() != item_bytes || dataset.shape().size() != 1)
    throw DataError(fmt::format("{}: wanted a list of integers of {} bytes", dataset.where(), item_bytes));
  if (rows == 0) return 0;
  const auto offset = dataset.contiguous_offset();
  if (!offset) throw DataError(fmt::format("{}: not stored in one piece (repacked?); tokenize the cells again", dataset.where()));
  if (*offset > size || rows > (size - *offset) / item_bytes)
    throw DataError(fmt::format("{}: ends behind the end of the file; the file is cut off", dataset.where()));
  return *offset;
}

template <class T>
Stored<T> Corpus::stored(const std::string& name) const {
  const Hdf5 dataset = file_.at(name);
  return {*file_bytes_, place_of(dataset, sizeof(T)), dataset.rows()};
}

void Corpus::look_up_by_copies() {
  offsets_.look_up_by_copies(), text_id_.look_up_by_copies(), group_id_.look_up_by_copies(), type_id_.look_up_by_copies();
  file_bytes_->release();
}

std::shared_ptr<const GeneVocabulary> Corpus::read_genes() const {
  const auto tokens = file_.at("genes/token_id").read<std::int32_t>();
  const auto ids = file_.at("genes/ensembl_id").read_strings(), names = file_.at("genes/gene_name").read_strings();
  const auto medians = file_.at("genes/median").read<double>();
  const size_t rows = tokens.size();
  constexpr size_t specials = GeneVocabulary::first_gene;
  if (rows < specials || ids.size() != rows || names.size() != rows || medians.size() != rows)
    throw DataError(fmt::format("{}: the columns of the gene vocabulary differ in length", file_.where("genes")));
  std::vector<Gene> genes;
  for (size_t i = specials; i < rows; ++i) {
    if (tokens[i] != static_cast<std::int32_t>(i))
      throw DataError(fmt::format("{}: token ids are not 0, 1, 2, …", file_.where("genes/token_id")));
    genes.push_back({ids[i], names[i], medians[i]});
  }
  auto vocabulary = std::make_shared<const GeneVocabulary>(std::move(genes));
  if (vocabulary->hash() != file_.text("vocabulary_sha256"))
    throw DataError(
        fmt::format("{}: the gene vocabulary does not have the hash that the file states; the file is damaged", file_.where("genes")));
  return vocabulary;
}

void Corpus::read_texts() {
  all_texts_ = file_.at("texts/text").read_strings();
  group_of_text_ = file_.at("texts/group_id").read<std::int32_t>();
  const auto labels = file_.at("texts/fields/label").read_strings(), ontology = file_.at("texts/fields/ontology_id").read_strings();
  std::vector<std::vector<std::string>> parts;
  if (file_.has("texts/field_names")) texts_.fields = file_.at("texts/field_names").read_strings();
  for (const std::string& field : texts_.fields) {
    parts.push_back(file_.at("texts/fields/" + field).read_strings());
    if (parts.back().size() != all_texts_.size()) throw DataError(fmt::format("{}: its columns differ in length", file_.where("texts")));
  }
  if (group_of_text_.size() != all_texts_.size() || labels.size() != all_texts_.size() || ontology.size() != all_texts_.size())
    throw DataError(fmt::format("{}: its columns differ in length", file_.where("texts")));
  for (size_t i = 0; i < all_texts_.size(); ++i) {
    const auto group = static_cast<size_t>(group_of_text_[i]);
    if (group_of_text_[i] < 0)
      throw DataError(fmt::format("{}: a text has the group {}", file_.where("texts/group_id"), group_of_text_[i]));
    if (group != texts_.labels.size() && group + 1 != texts_.labels.size())
      throw DataError(fmt::format("{}: the texts of a group are not side by side", file_.where("texts/group_id")));
    if (group == texts_.labels.size()) {
      texts_.labels.push_back({labels[i], {}, ontology[i]});
      for (const auto& column : parts) texts_.labels.back().parts.push_back(column[i]);
      first_text_of_group_.push_back(static_cast<std::int32_t>(i));
    }
    texts_.labels[group].texts.push_back(all_texts_[i]);
  }
  first_text_of_group_.push_back(static_cast<std::int32_t>(all_texts_.size()));
}

void Corpus::read_types() {
  if (!file_.has("types/term")) return;
  const auto terms = file_.at("types/term").read<std::int32_t>(), ancestors = file_.at("types/ancestor").read<std::int32_t>();
  if (terms.size() != ancestors.size()) throw DataError(fmt::format("{}: its columns differ in length", file_.where("types")));
  for (size_t i = 0; i < terms.size(); ++i) ancestors_.push_back({terms[i], ancestors[i]});
}

void Corpus::check() const {
  const std::uint64_t n = cells();
  bool sound = offsets_.size() == n + 1 && group_id_.size() == n && type_id_.size() == n && offsets_[0] == 0 && offsets_[n] == tokens_;
  for (std::uint64_t i = 0; sound && i < n; ++i) {
    sound = offsets_[i] <= offsets_[i + 1] && group_id_[i] >= -1 && group_id_[i] < static_cast<std::int64_t>(texts_.labels.size());
    sound = sound && text_id_[i] == (group_id_[i] < 0 ? -1 : first_text_of_group_[static_cast<size_t>(group_id_[i])]);
  }
  if (!sound)
    throw DataError(fmt::format("{}: offsets, text_id and group_id do not fit together; the file is damaged, tokenize the cells again",
                                path_.string()));
}

template <class T>
std::int64_t Corpus::copy(std::uint64_t cell, std::span<std::int32_t> out) const {
  const auto [begin, end] = offsets_.some<2>(cell);
  const std::uint64_t count = std::min<std::uint64_t>(end - begin, out.size());
  if (begin > tokens_ || count > tokens_ - begin)
    throw DataError(
        fmt::format("{}:/offsets: cell {} ends behind the last token; the file changed while it was read", path_.string(), cell));
  thread_local std::vector<T> copied;
  copied.resize(count);
  file_bytes_->copy(first_token_ + begin * sizeof(T), std::as_writable_bytes(std::span(copied)));
  std::int32_t least = GeneVocabulary::first_gene, most = least;
  const T* from = copied.data();
  std::int32_t* to = out.data();
#pragma omp simd reduction(min : least) reduction(max : most)
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto id = static_cast<std::int32_t>(from[i]);
    to[i] = id, least = std::min(least, id), most = std::max(most, id);
  }
  if (least < GeneVocabulary::first_gene || most >= vocabulary_->cls())
    throw DataError(fmt::format("{}:/tokens: cell {} holds id {}, which is no gene; the file is damaged", path_.string(), cell,
                                static_cast<std::uint32_t>(least < GeneVocabulary::first_gene ? least : most)));
  return static_cast<std::int64_t>(count);
}

std::int64_t Corpus::copy_tokens(std::uint64_t cell, std::span<std::int32_t> out) const {
  return token_bytes_ == sizeof(std::uint32_t) ? copy<std::uint32_t>(cell, out) : copy<std::uint16_t>(cell, out);
}

void Corpus::read_soon(std::uint64_t cell) const {
  const auto [begin, end] = offsets_.some<2>(cell);
  file_bytes_->copy_soon(first_token_ + begin * token_bytes_, (end - begin) * token_bytes_);
}

std::pair<std::int32_t, std::int32_t> Corpus::texts_of_group(std::int32_t group) const {
  return {first_text_of_group_.at(static_cast<size_t>(group)), first_text_of_group_.at(static_cast<size_t>(group) + 1)};
}

std::vector<std::string> Corpus::column(const std::string& key) const {
  std::vector<std::string> all;
  for_column(key, [&](std::uint64_t, std::span<const std::string> some) { all.insert(all.end(), some.begin(), some.end()); });
  return all;
}

void Corpus::for_column(const std::string& key, const std::function<void(std::uint64_t, std::span<const std::string>)>& f) const {
  constexpr std::uint64_t kAtOnce = 65536;
  const Hdf5 dataset = file_.at("obs/" + key);
  if (dataset.rows() != cells()) throw DataError(fmt::format("{}: {} entries for {} cells", dataset.where(), dataset.rows(), cells()));
  for (std::uint64_t begin = 0; begin < cells(); begin += kAtOnce)
    f(begin, dataset.read_strings(begin, std::min(begin + kAtOnce, cells())));
}

std::vector<CorpusInput> Corpus::inputs() const {
  const Hdf5 group = file_.at("inputs");
  const auto files = group.at("file").read_strings(), hashes = group.at("sha256").read_strings(),
             counts = group.at("counts").read_strings();
  const auto cells = group.at("cells").read<std::uint64_t>();
  const auto id_match = group.at("id_match").read<double>(), known = group.at("counts_known").read<double>(),
             breadth = group.at("breadth").read<double>();
  const size_t n = files.size();
  for (const size_t rows : {hashes.size(), counts.size(), cells.size(), id_match.size(), known.size(), breadth.size()})
    if (rows != n) throw DataError(fmt::format("{}: its columns differ in length", group.where()));
  std::vector<CorpusInput> inputs;
  for (size_t i = 0; i < n; ++i) inputs.push_back({files[i], hashes[i], counts[i], cells[i], id_match[i], known[i], breadth[i]});
  return inputs;
}

void Corpus::verify() const {
  ContentHash content;
  ArrayHash tokens;
  std::string piece;
  for (std::uint64_t at = 0, all = tokens_ * token_bytes_; at < all; at += piece.size()) {
    piece.resize(std::min<std::uint64_t>(kHashBlock, all - at));
    file_bytes_->copy(first_token_ + at, std::as_writable_bytes(std::span(piece)));
    tokens.add(piece);
  }
  content.add_hash("tokens", tokens.finish());
  content.add("offsets", offsets_.bytes());
  content.add("text_id", text_id_.bytes());
  content.add("group_id", group_id_.bytes());
  content.add("type_id", type_id_.bytes());
  content.add(ancestors_);
  if (content.finish(*vocabulary_, texts_) != content_hash())
    throw DataError(fmt::format(
        "{}: the content does not have the hash that the file states; the file is damaged, tokenize the cells again", path_.string()));
}

}  // namespace lc
