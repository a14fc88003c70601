// From token lists to what a tower reads: sequences end to end, with keys for chance; and the masking of genes.
#pragma once
#include <span>
#include <vector>

#include "models/langcell/transformer.h"

namespace lc {

struct Sequences {  // on the host
  std::vector<std::int32_t> ids;
  PackingSpec packing;
  void add(std::span<const std::int32_t> tokens, std::uint64_t key);
  void add(std::span<const std::int32_t> tokens, std::uint64_t key, std::int32_t kv);  // reads key/value sequence kv
  std::size_t count() const { return packing.lengths.size(); }
};

enum class Purpose : std::uint8_t { inference, training };  // training also sorts the rows by id, for the gradient of the table

Tokens upload(const Sequences& sequences, Purpose purpose, const Queue& queue = {});

// `<cls>` and the best genes, cut to max_tokens in all.
std::vector<std::int32_t> cell_sequence(std::span<const std::int32_t> genes, std::int32_t cls, int max_tokens);

struct MaskRule {
  float rate = 0.15f;           // of the gene tokens; of those 80 % become <mask>, 10 % a random gene, 10 % stay
  PhiloxKey chance{};           // of the step
  std::int32_t vocabulary = 0;  // genes are 2 … vocabulary − 2; <cls> is the last
};
struct MaskedSequences {
  Sequences sequences;
  std::vector<std::int32_t> rows, labels;  // chosen rows of the packing and the genes that were there
};
MaskedSequences mask_genes(const Sequences& clean, const MaskRule& rule);

}  // namespace lc
