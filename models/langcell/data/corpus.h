// corpus.h5: tokenised cells and their texts in plain HDF5. What has one entry per cell or token is contiguous. The former is read through
// a memory map, tokens are copied cell by cell: of a map, each cell would leave 256 KiB in this process and take three times as long
// (Linux 6.18). So an open corpus holds at most the map, 20 bytes a cell, and nothing of it after look_up_by_copies().
// group_id is the label's place in T.json, text_id the first of its texts.
#pragma once
#include <array>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/atomic_file.h"
#include "engine/hdf5.h"
#include "engine/mapped_file.h"
#include "models/langcell/data/gene_vocabulary.h"
#include "models/langcell/data/texts.h"

namespace lc {

// What became of the cells: read = kept + all dropped; `noted` counts kept cells that a reader should know of.
struct Funnel {
  std::uint64_t read = 0, kept = 0;
  std::vector<std::pair<std::string, std::uint64_t>> dropped, noted;
  static Funnel parse(std::string_view json);
  std::string json() const;
};

struct CorpusInput {
  std::string file, sha256, counts;  // counts: the matrix the cells were read from, e.g. "raw/X"
  std::uint64_t cells = 0;
  double id_match = 0, counts_known = 0, breadth = 0;  // how much of the file the vocabulary knows, 0 to 1
};

struct CorpusCell {
  std::string_view name;
  std::span<const std::int32_t> tokens;       // no <cls>, cut to max_genes
  std::int32_t group = -1;                    // the label's index in Texts::labels; -1: none
  std::span<const std::string> columns = {};  // one entry per CorpusSetup::columns
};

struct TypeAncestor {  // numbers of Cell Ontology terms: `type` is a kind of `ancestor`
  std::int32_t type = 0, ancestor = 0;
  bool operator==(const TypeAncestor&) const = default;
};

struct CorpusSetup {
  GeneVocabulary vocabulary;
  Texts texts;                       // may be empty: a corpus for stage 1
  std::vector<std::string> columns;  // written as obs/KEY
  std::int64_t max_genes = 2047;
  Existing existing = Existing::refuse;
  std::vector<TypeAncestor> ancestors = {};  // of the types of the texts
};

// Cells stream into unlinked scratch files beside the output and from there into their datasets; nothing is held per cell.
class CorpusWriter {
 public:
  CorpusWriter(const std::filesystem::path& path, CorpusSetup setup);
  ~CorpusWriter();
  CorpusWriter(const CorpusWriter&) = delete;
  CorpusWriter& operator=(const CorpusWriter&) = delete;
  void append(const CorpusCell& cell);
  // Appears under its name; returns the content hash. `provenance`: further attributes.
  std::string finish(const Funnel& funnel, std::span<const CorpusInput> inputs, const std::map<std::string, std::string>& provenance);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Numbers in a file, at any address: looked up in its memory, or, where that would grow too large, by copies.
template <class T>
class Stored {
 public:
  Stored() = default;
  Stored(const MappedFile& file, std::uint64_t offset, std::uint64_t size) : file_(&file), offset_(offset), size_(size) {}
  T operator[](std::uint64_t i) const { return some<1>(i)[0]; }
  template <std::size_t N>
  std::array<T, N> some(std::uint64_t first) const {
    std::array<T, N> values;
    const std::uint64_t at = offset_ + first * sizeof(T);
    if (by_copies_)
      file_->copy(at, std::as_writable_bytes(std::span(values)));
    else
      std::memcpy(values.data(), file_->data() + at, sizeof values);
    return values;
  }
  std::uint64_t size() const { return size_; }
  std::string_view bytes() const { return {reinterpret_cast<const char*>(file_->data()) + offset_, size_ * sizeof(T)}; }
  void look_up_by_copies() { by_copies_ = true; }

 private:
  const MappedFile* file_ = nullptr;
  std::uint64_t offset_ = 0, size_ = 0;
  bool by_copies_ = false;
};

// Each folder replaced by the .h5 files in it, by name. DataError for a folder without any.
std::vector<std::filesystem::path> corpus_files(std::span<const std::filesystem::path> corpora);

class Corpus {
 public:
  // DataError when it is no corpus, damaged, or offsets and ids are out of range. Of many corpora, `known` lets one vocabulary serve all.
  static Corpus open(const std::filesystem::path& path, const std::shared_ptr<const GeneVocabulary>& known = nullptr);
  void verify() const;  // recomputes the content hash: reads everything once; DataError when it differs

  std::uint64_t cells() const { return text_id_.size(); }
  std::uint64_t tokens() const { return tokens_; }
  std::int64_t length(std::uint64_t cell) const {
    const auto [begin, end] = offsets_.some<2>(cell);
    return static_cast<std::int64_t>(end - begin);
  }
  // The best out.size() genes of the cell, or all there are; returns how many. DataError on an id outside the vocabulary.
  std::int64_t copy_tokens(std::uint64_t cell, std::span<std::int32_t> out) const;
  void read_soon(std::uint64_t cell) const;                                    // its tokens, in the background
  std::uint64_t bytes_mapped() const { return cells() * 20; }                  // at most, of the arrays below and the lengths
  void look_up_by_copies();                                                    // slower (0.7 in place of 0.1 µs), and nothing is mapped
  std::int32_t text_id(std::uint64_t cell) const { return text_id_[cell]; }    // -1: none
  std::int32_t group_id(std::uint64_t cell) const { return group_id_[cell]; }  // -1: none
  std::int32_t type_id(std::uint64_t cell) const { return type_id_[cell]; }    // Cell Ontology number; -1: not known

  const GeneVocabulary& vocabulary() const { return *vocabulary_; }
  const std::shared_ptr<const GeneVocabulary>& shared_vocabulary() const { return vocabulary_; }
  std::span<const TypeAncestor> ancestors() const { return ancestors_; }
  const Texts& texts() const { return texts_; }                          // groups in order: group g is texts().labels[g]
  std::span<const std::string> all_texts() const { return all_texts_; }  // by text id
  std::int32_t group_of_text(std::int32_t text) const { return group_of_text_.at(static_cast<size_t>(text)); }
  std::pair<std::int32_t, std::int32_t> texts_of_group(std::int32_t group) const;  // text ids [first, last)

  std::vector<std::string> column(const std::string& key) const;  // obs/KEY of every cell; "name" is the cell's name
  // The same in pieces: f(number of the first cell, entries).
  void for_column(const std::string& key, const std::function<void(std::uint64_t, std::span<const std::string>)>& f) const;
  bool has_column(const std::string& key) const { return file_.has("obs/" + key); }
  std::int64_t max_genes() const { return max_genes_; }
  std::string content_hash() const { return file_.text("content_sha256"); }
  Funnel funnel() const { return Funnel::parse(file_.text("funnel")); }
  std::vector<CorpusInput> inputs() const;
  const std::filesystem::path& path() const { return path_; }

 private:
  Corpus(std::filesystem::path path, Hdf5 file, const std::shared_ptr<const GeneVocabulary>& known);
  std::uint64_t place_of(const Hdf5& dataset, std::size_t item_bytes) const;
  template <class T>
  Stored<T> stored(const std::string& name) const;
  void read_texts();
  void read_types();
  template <class T>
  std::int64_t copy(std::uint64_t cell, std::span<std::int32_t> out) const;
  std::shared_ptr<const GeneVocabulary> read_genes() const;
  void check() const;

  std::filesystem::path path_;
  Hdf5 file_;
  std::shared_ptr<const MappedFile> file_bytes_;
  std::uint64_t token_bytes_ = 2, tokens_ = 0, first_token_ = 0;  // of one; how many; where in the file
  Stored<std::uint64_t> offsets_;
  Stored<std::int32_t> text_id_, group_id_, type_id_;
  std::shared_ptr<const GeneVocabulary> vocabulary_;
  Texts texts_;
  std::vector<TypeAncestor> ancestors_;
  std::vector<std::string> all_texts_;
  std::vector<std::int32_t> group_of_text_, first_text_of_group_;
  std::int64_t max_genes_ = 0;
};

// SHA-256 over the SHA-256 of each 4 MiB of an array, so that it can be computed while writing and again from the file.
class ArrayHash {
 public:
  void add(std::string_view bytes);
  std::string finish();

 private:
  void close_block();
  std::string block_, blocks_;
};

}  // namespace lc
