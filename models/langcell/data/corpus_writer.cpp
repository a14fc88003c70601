// Writing a corpus: how long its arrays get is known only at the end, and contiguous datasets cannot grow, so they pass through scratch
// files.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>

#include "engine/build.h"
#include "engine/errors.h"
#include "models/langcell/data/corpus.h"
#include "models/langcell/data/corpus_format.h"

namespace lc {

using namespace corpus_format;

namespace {

constexpr size_t kBuffer = size_t{1} << 20;
constexpr size_t kStringsAtOnce = 4096;

// Bytes in a file without a name: it vanishes with the process, whatever ends it.
class Scratch {
 public:
  explicit Scratch(const std::filesystem::path& beside) : beside_(beside) {
    std::string name = beside.string() + ".scratch-XXXXXX";
    descriptor_ = ::mkstemp(name.data());
    if (descriptor_ < 0) fail();
    ::unlink(name.c_str());
  }
  ~Scratch() { ::close(descriptor_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  template <class T>
  void append(std::span<const T> values) {
    buffer_.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
    if (buffer_.size() >= kBuffer) flush();
  }
  template <class T>
  void append(const T& value) {
    append(std::span<const T>(&value, 1));
  }
  template <class T>
  std::uint64_t count() const {
    return (written_ + buffer_.size()) / sizeof(T);
  }

  // All values in order, in pieces; f(span of T).
  template <class T, class F>
  void replay(F&& f) {
    flush();
    std::vector<T> piece(kBuffer / sizeof(T));
    for (std::uint64_t at = 0; at < written_;) {
      const ssize_t got = ::pread(descriptor_, piece.data(), std::min<std::uint64_t>(kBuffer, written_ - at), static_cast<off_t>(at));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0 || static_cast<size_t>(got) % sizeof(T) != 0) fail();
      f(std::span<const T>(piece.data(), static_cast<size_t>(got) / sizeof(T)));
      at += static_cast<std::uint64_t>(got);
    }
  }

 private:
  void flush() {
    for (size_t at = 0; at < buffer_.size();) {
      const ssize_t put = ::write(descriptor_, buffer_.data() + at, buffer_.size() - at);
      if (put < 0 && errno != EINTR) fail();
      if (put > 0) at += static_cast<size_t>(put);
    }
    written_ += buffer_.size();
    buffer_.clear();
  }
  [[noreturn]] void fail() const {
    throw ResourceError(fmt::format("{}: scratch space beside it cannot be used: {}", beside_.string(), std::strerror(errno)));
  }

  std::filesystem::path beside_;
  int descriptor_ = -1;
  std::string buffer_;
  std::uint64_t written_ = 0;
};

struct StringColumn {
  Hdf5 dataset;
  std::vector<std::string> waiting;
  void append(std::string_view text) {
    waiting.emplace_back(text);
    if (waiting.size() == kStringsAtOnce) flush();
  }
  void flush() {
    dataset.append_strings(waiting);
    waiting.clear();
  }
};

StringColumn string_column(const Hdf5& file, const std::string& name) {
  H5Storage storage;
  storage.grows = true;
  return {file.write_strings(name, {}, storage), {}};
}

void write_genes(const Hdf5& file, const GeneVocabulary& vocabulary) {
  std::vector<std::int32_t> tokens = {GeneVocabulary::pad, GeneVocabulary::mask};
  std::vector<std::string> ids = {"<pad>", "<mask>"}, names = {"", ""};
  std::vector<double> medians = {std::nan(""), std::nan("")};
  for (const Gene& gene : vocabulary.genes()) {
    tokens.push_back(static_cast<std::int32_t>(tokens.size()));
    ids.push_back(gene.ensembl_id);
    names.push_back(gene.name);
    medians.push_back(gene.median);
  }
  file.write<std::int32_t>("genes/token_id", tokens);
  file.write_strings("genes/ensembl_id", ids);
  file.write_strings("genes/gene_name", names);
  file.write<double>("genes/median", medians);
}

void write_texts(const Hdf5& file, const Texts& texts) {
  std::vector<std::int32_t> groups;
  std::vector<std::string> labels, ontology;
  for (size_t group = 0; group < texts.labels.size(); ++group)
    for (size_t i = 0; i < texts.labels[group].texts.size(); ++i) {
      groups.push_back(static_cast<std::int32_t>(group));
      labels.push_back(texts.labels[group].label);
      ontology.push_back(texts.labels[group].ontology_id);
    }
  if (!texts.fields.empty()) file.write_strings("texts/field_names", texts.fields);
  for (size_t field = 0; field < texts.fields.size(); ++field) {
    std::vector<std::string> parts;
    for (const LabelTexts& entry : texts.labels) parts.push_back(entry.parts.at(field));
    file.write_strings("texts/fields/" + texts.fields[field], parts);
  }
  file.write_strings("texts/text", texts.all());
  file.write<std::int32_t>("texts/group_id", groups);
  file.write_strings("texts/fields/label", labels);
  file.write_strings("texts/fields/ontology_id", ontology);
}

void write_types(const Hdf5& file, std::span<const TypeAncestor> pairs) {
  if (pairs.empty()) return;
  std::vector<std::int32_t> terms, ancestors;
  for (const TypeAncestor& pair : pairs) terms.push_back(pair.type), ancestors.push_back(pair.ancestor);
  file.write<std::int32_t>("types/term", terms);
  file.write<std::int32_t>("types/ancestor", ancestors);
}

void write_inputs(const Hdf5& file, std::span<const CorpusInput> inputs) {
  std::vector<std::string> files, hashes, counts;
  std::vector<std::uint64_t> cells;
  std::vector<double> id_match, counts_known, breadth;
  for (const CorpusInput& input : inputs) {
    files.push_back(input.file);
    hashes.push_back(input.sha256);
    counts.push_back(input.counts);
    cells.push_back(input.cells);
    id_match.push_back(input.id_match);
    counts_known.push_back(input.counts_known);
    breadth.push_back(input.breadth);
  }
  file.write_strings("inputs/file", files);
  file.write_strings("inputs/sha256", hashes);
  file.write_strings("inputs/counts", counts);
  file.write<std::uint64_t>("inputs/cells", cells);
  file.write<double>("inputs/id_match", id_match);
  file.write<double>("inputs/counts_known", counts_known);
  file.write<double>("inputs/breadth", breadth);
}

// From scratch to its dataset; returns its hash.
template <class T>
std::string store(const Hdf5& file, const std::string& name, Scratch& scratch) {
  const Hdf5 dataset = file.allocate<T>(name, {scratch.count<T>()});
  ArrayHash hash;
  std::uint64_t row = 0;
  scratch.replay<T>([&](std::span<const T> values) {
    dataset.write_rows<T>(row, values);
    hash.add({reinterpret_cast<const char*>(values.data()), values.size_bytes()});
    row += values.size();
  });
  return hash.finish();
}

}  // namespace

struct CorpusWriter::State {
  State(const std::filesystem::path& path, CorpusSetup given)
      : setup(std::move(given)),
        output(path, setup.existing),
        file(Hdf5::create(output.partial_path())),
        tokens(path),
        offsets(path),
        groups(path) {
    for (const LabelTexts& entry : setup.texts.labels) {
      first_text.push_back(static_cast<std::int32_t>(text_count));
      type.push_back(cell_ontology_number(entry.ontology_id));
      text_count += entry.texts.size();
    }
    columns.push_back(string_column(file, "obs/name"));
    for (const std::string& key : setup.columns) columns.push_back(string_column(file, "obs/" + key));
    offsets.append(token_count);
  }
  void append_tokens(std::span<const std::int32_t> list) {
    if (narrow) {
      narrowed.assign(list.begin(), list.end());
      tokens.append(std::span<const std::uint16_t>(narrowed));
    } else {
      tokens.append(list);
    }
    token_count += list.size();
    offsets.append(token_count);
  }
  CorpusSetup setup;
  AtomicFile output;
  Hdf5 file;
  Scratch tokens, offsets, groups;
  const bool narrow = setup.vocabulary.size() <= 65536;  // tokens as uint16
  std::vector<std::uint16_t> narrowed;
  std::uint64_t token_count = 0;
  std::vector<StringColumn> columns;
  std::vector<std::int32_t> first_text, type;  // by group
  size_t text_count = 0;
};

CorpusWriter::CorpusWriter(const std::filesystem::path& path, CorpusSetup setup)
    : state_(std::make_unique<State>(path, std::move(setup))) {}
CorpusWriter::~CorpusWriter() = default;

void CorpusWriter::append(const CorpusCell& cell) {
  State& s = *state_;
  if (cell.columns.size() + 1 != s.columns.size())
    throw ShapeError(fmt::format("corpus: wanted {} columns per cell, got {}", s.columns.size() - 1, cell.columns.size()));
  if (cell.group < -1 || cell.group >= static_cast<std::int64_t>(s.first_text.size()))
    throw ShapeError(fmt::format("corpus: wanted a group below {}, got {}", s.first_text.size(), cell.group));
  s.append_tokens(cell.tokens.first(std::min(cell.tokens.size(), static_cast<size_t>(s.setup.max_genes))));
  s.groups.append(cell.group);
  s.columns[0].append(cell.name);
  for (size_t i = 0; i < cell.columns.size(); ++i) s.columns[i + 1].append(cell.columns[i]);
}

std::string CorpusWriter::finish(const Funnel& funnel, std::span<const CorpusInput> inputs,
                                 const std::map<std::string, std::string>& provenance) {
  State& s = *state_;
  for (StringColumn& column : s.columns) column.flush();
  Scratch texts(s.output.partial_path()), types(s.output.partial_path());
  s.groups.replay<std::int32_t>([&](std::span<const std::int32_t> groups) {
    for (const std::int32_t group : groups) {
      texts.append(group < 0 ? -1 : s.first_text[static_cast<size_t>(group)]);
      types.append(group < 0 ? -1 : s.type[static_cast<size_t>(group)]);
    }
  });
  ContentHash content;
  content.add_hash("tokens",
                   s.narrow ? store<std::uint16_t>(s.file, "tokens", s.tokens) : store<std::uint32_t>(s.file, "tokens", s.tokens));
  content.add_hash("offsets", store<std::uint64_t>(s.file, "offsets", s.offsets));
  content.add_hash("text_id", store<std::int32_t>(s.file, "text_id", texts));
  content.add_hash("group_id", store<std::int32_t>(s.file, "group_id", s.groups));
  content.add_hash("type_id", store<std::int32_t>(s.file, "type_id", types));
  write_genes(s.file, s.setup.vocabulary);
  write_texts(s.file, s.setup.texts);
  write_types(s.file, s.setup.ancestors);
  write_inputs(s.file, inputs);

  content.add(s.setup.ancestors);
  const std::string hash = content.finish(s.setup.vocabulary, s.setup.texts);
  s.file.set("format", kFormat);
  s.file.set("format_version", kVersion);
  s.file.set("program", fmt::format("langcell {}", build::kVersion));
  s.file.set("max_genes", s.setup.max_genes);
  s.file.set("vocabulary_sha256", s.setup.vocabulary.hash());
  s.file.set("content_sha256", hash);
  s.file.set("funnel", funnel.json());
  for (const auto& [key, value] : provenance) s.file.set(key, value);
  s.columns.clear();
  s.file.close();
  s.output.commit();
  return hash;
}

}  // namespace lc
