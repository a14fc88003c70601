// What the writer and the reader of corpus.h5 must agree on. For their two files only.
#pragma once
#include <string>
#include <string_view>

#include "models/langcell/data/corpus.h"

namespace lc::corpus_format {

inline constexpr std::string_view kFormat = "langcell corpus";
inline constexpr std::int64_t kVersion = 1;
inline constexpr size_t kHashBlock = size_t{4} << 20;

// The content hash: one line per array (name and hash), then the vocabulary's hash and the texts.
class ContentHash {
 public:
  void add(std::string_view name, std::string_view bytes) {
    ArrayHash hash;
    hash.add(bytes);
    add_hash(name, hash.finish());
  }
  void add_hash(std::string_view name, const std::string& hash) { lines_ += std::string(name) + ' ' + hash + '\n'; }
  void add(std::span<const TypeAncestor> types) {
    std::string all;
    for (const TypeAncestor& pair : types) all += std::to_string(pair.type) + ' ' + std::to_string(pair.ancestor) + '\n';
    if (!all.empty()) lines_ += "types " + sha256_of(all) + '\n';
  }
  std::string finish(const GeneVocabulary& vocabulary, const Texts& texts) {
    lines_ += "genes " + vocabulary.hash() + '\n';
    std::string all;
    for (const LabelTexts& entry : texts.labels) {
      all += entry.label + '\0' + entry.ontology_id + '\0';
      for (const std::string& text : entry.texts) all += text + '\0';
      for (const std::string& part : entry.parts) all += part + '\0';
    }
    for (const std::string& field : texts.fields) all += field + '\0';
    return sha256_of(lines_ + "texts " + sha256_of(all) + '\n');
  }

 private:
  std::string lines_;
};

}  // namespace lc::corpus_format
