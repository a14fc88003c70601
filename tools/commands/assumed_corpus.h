// A corpus of made-up cells of one length, to plan for one that is not there yet.
#pragma once
#include <cstdint>
#include <filesystem>

namespace lc {

struct AssumedCorpus {
  std::int64_t cells = 0, genes = 25424, cell_tokens = 2048;  // tokens with <cls>
  std::int64_t texts = 64, text_tokens = 96;                  // tokens with [CLS] and [SEP]; 0 texts: none
};

void write_assumed_corpus(const std::filesystem::path& path, const AssumedCorpus& what);

}  // namespace lc
