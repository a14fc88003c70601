// MODEL_CARD.md: what a person should know of a model before using it. It says only what the program knows.
#pragma once
#include <string>

#include "models/langcell/folder_config.h"
#include "models/langcell/langcell.h"

namespace lc {

std::string model_card(const LangCell& model, const FolderConfig& config, const LangCell::Parts& parts);

}  // namespace lc
