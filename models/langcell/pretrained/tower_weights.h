// Weights of a BERT written by others into one tower of ours: names brought to ours, sizes held against config.json, every tensor accounted
// for. The names are Hugging Face's (transformers, BertModel and BertForMaskedLM), which the published LangCell keeps.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "models/langcell/langcell.h"
#include "models/langcell/pretrained/tensor_files.h"

namespace lc {

struct IgnoredTensor {
  std::string name, reason;
};
struct TensorAccount {  // of one part of the model
  std::string part;     // "cell_bert"
  std::int64_t loaded = 0;
  std::vector<IgnoredTensor> ignored;
  std::vector<std::string> fresh;  // parameters that no tensor fills, by design: they keep their initial values
};

enum class TowerSource : std::uint8_t {
  langcell,    // a part of a LangCell bundle: nothing may be missing
  geneformer,  // one row of the gene table is missing (<cls>, new); the language head fills mgm_head where the model has one
  text_bert    // a BERT for texts: no cross-attention yet; row 0 of its token types, added everywhere, is folded into the positions
};

// A tower's sizes from config.json and its tensors, before memory is taken for them. ModelError where the two disagree.
TowerConfig read_tower(const std::filesystem::path& folder, const TensorFiles& files, TowerSource source);

// Fills `part` ("cell_bert" or "text_bert") of the model. ModelError with the whole list for tensors that are missing, unknown, or of
// another shape or type.
TensorAccount fill_tower(const TensorFiles& files, TowerSource source, const std::string& part, LangCell& model);
// Fills a head (weight, bias) from a file of its own.
TensorAccount fill_head(const TensorFiles& files, const std::string& part, LangCell& model);

std::string text_of(const TensorAccount& account);  // one line

}  // namespace lc
