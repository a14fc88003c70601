// Reading a corpus. Whatever the mapped arrays are trusted for later is checked when it is opened.
#include "models/langcell/data/corpus.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "engine/errors.h"
#include "models/langcell/data/corpus_format.h"

namespace lc {

using namespace corpus_format;

struct Corpus::Map {
  explicit Map(const std::filesystem::path& path) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat status {};
    if (descriptor < 0 || fstat(descriptor, &status) != 0) {
      if (descriptor >= 0) ::close(descriptor);
      throw DataError(fmt::format("{}: cannot be read: {}", path.string(), std::strerror(errno)));
    }
    size = static_cast<std::uint64_t>(status.st_size);
    data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor, 0);
    ::close(descriptor);
    if (data == MAP_FAILED) throw ResourceError(fmt::format("{}: cannot be mapped into memory: {}", path.string(), std::strerror(errno)));
  }
  ~Map() { ::munmap(data, size); }
  Map(const Map&) = delete;
  Map& operator=(const Map&) = delete;
  void* data = nullptr;
  std::uint64_t size = 0;
};

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

Corpus Corpus::open(const std::filesystem::path& path) {
  Hdf5 file = Hdf5::open(path);
  if (file.text_or("format", "") != kFormat)
    throw DataError(fmt::format("{}: not a corpus; make one with: langcell tokenize", path.string()));
  if (file.integer("format_version") != kVersion)
    throw DataError(fmt::format("{}: corpus format {}, this program reads {}; tokenize the cells again", path.string(),
                                file.integer("format_version"), kVersion));
  Corpus corpus(path, std::move(file));
  corpus.check();
  return corpus;
}

Corpus::Corpus(std::filesystem::path path, Hdf5 file)
    : path_(std::move(path)), file_(std::move(file)), map_(std::make_shared<const Map>(path_)) {
  read_genes();
  read_texts();
  read_types();
  max_genes_ = file_.integer("max_genes");
  wide_ = file_.at("tokens").item_bytes() == sizeof(std::uint32_t);
  if (wide_)
    wide_tokens_ = mapped<std::uint32_t>("tokens");
  else
    narrow_tokens_ = mapped<std::uint16_t>("tokens");
  offsets_ = mapped<std::uint64_t>("offsets");
  text_id_ = mapped<std::int32_t>("text_id");
  group_id_ = mapped<std::int32_t>("group_id");
  type_id_ = mapped<std::int32_t>("type_id");
}

template <class T>
Mapped<T> Corpus::mapped(const std::string& name) const {
  const Hdf5 dataset = file_.at(name);
  const std::uint64_t rows = dataset.rows();
  if (dataset.kind() != H5Kind::integer || dataset.item_bytes() != sizeof(T) || dataset.shape().size() != 1)
    throw DataError(fmt::format("{}: wanted a list of integers of {} bytes", dataset.where(), sizeof(T)));
  if (rows == 0) return {};
  const auto offset = dataset.contiguous_offset();
  if (!offset) throw DataError(fmt::format("{}: not stored in one piece (repacked?); tokenize the cells again", dataset.where()));
  if (*offset > map_->size || rows > (map_->size - *offset) / sizeof(T))
    throw DataError(fmt::format("{}: ends behind the end of the file; the file is cut off", dataset.where()));
  return {static_cast<const std::byte*>(map_->data) + *offset, rows};
}

void Corpus::read_genes() {
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
  vocabulary_ = GeneVocabulary(std::move(genes));
  if (vocabulary_.hash() != file_.text("vocabulary_sha256"))
    throw DataError(
        fmt::format("{}: the gene vocabulary does not have the hash that the file states; the file is damaged", file_.where("genes")));
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
  const std::uint64_t n = cells(), stored = wide_ ? wide_tokens_.size() : narrow_tokens_.size();
  bool sound = offsets_.size() == n + 1 && group_id_.size() == n && type_id_.size() == n && offsets_[0] == 0 && offsets_[n] == stored;
  for (std::uint64_t i = 0; sound && i < n; ++i) {
    sound = offsets_[i] <= offsets_[i + 1] && group_id_[i] >= -1 && group_id_[i] < static_cast<std::int64_t>(texts_.labels.size());
    sound = sound && text_id_[i] == (group_id_[i] < 0 ? -1 : first_text_of_group_[static_cast<size_t>(group_id_[i])]);
  }
  if (!sound)
    throw DataError(fmt::format("{}: offsets, text_id and group_id do not fit together; the file is damaged, tokenize the cells again",
                                path_.string()));
}

std::int64_t Corpus::copy_tokens(std::uint64_t cell, std::span<std::int32_t> out) const {
  const std::uint64_t begin = offsets_[cell], count = std::min<std::uint64_t>(offsets_[cell + 1] - begin, out.size());
  const std::int32_t cls = vocabulary_.cls();
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint32_t token = wide_ ? wide_tokens_[begin + i] : narrow_tokens_[begin + i];
    if (token < GeneVocabulary::first_gene || token >= static_cast<std::uint32_t>(cls))
      throw DataError(fmt::format("{}:/tokens: cell {} holds id {}, which is no gene; the file is damaged", path_.string(), cell, token));
    out[i] = static_cast<std::int32_t>(token);
  }
  return static_cast<std::int64_t>(count);
}

std::pair<std::int32_t, std::int32_t> Corpus::texts_of_group(std::int32_t group) const {
  return {first_text_of_group_.at(static_cast<size_t>(group)), first_text_of_group_.at(static_cast<size_t>(group) + 1)};
}

std::vector<std::string> Corpus::column(const std::string& key) const {
  auto values = file_.at("obs/" + key).read_strings();
  if (values.size() != cells())
    throw DataError(fmt::format("{}: {} entries for {} cells", file_.where("obs/" + key), values.size(), cells()));
  return values;
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
  content.add("tokens", wide_ ? wide_tokens_.bytes() : narrow_tokens_.bytes());
  content.add("offsets", offsets_.bytes());
  content.add("text_id", text_id_.bytes());
  content.add("group_id", group_id_.bytes());
  content.add("type_id", type_id_.bytes());
  content.add(ancestors_);
  if (content.finish(vocabulary_, texts_) != content_hash())
    throw DataError(fmt::format(
        "{}: the content does not have the hash that the file states; the file is damaged, tokenize the cells again", path_.string()));
}

}  // namespace lc
