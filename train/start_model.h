// What a run starts from: a model folder, foreign towers, or nothing; with the vocabularies and the tokens of the corpus's texts.
#pragma once
#include <functional>
#include <memory>
#include <string>

#include "models/langcell/model_folder.h"
#include "train/dataset.h"
#include "train/options.h"

namespace lc {

bool uses_text(const Options& options);  // whether a stage contrasts or matches cells with texts

struct StartModel {
  std::unique_ptr<LangCell> model;  // with room for training
  ModelFacts facts;
  bool cell_loaded = false, text_loaded = false;  // towers that bring weights with them
};

// UsageError naming the key for what cannot be trained so, ModelError for folders that are damaged or do not fit the corpus.
// Tokenises the texts of `data`. Notes and warnings are lines.
StartModel start_model(const Options& options, Dataset& data, const Queue& queue, const std::function<void(const std::string&)>& say,
                       const std::function<void(const std::string&)>& warn);

}  // namespace lc
