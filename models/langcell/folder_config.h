// The three config.json of a model folder. A tower's sizes are those of its Hugging Face BertConfig; the folder's own config.json repeats
// them for readers and must agree.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "models/langcell/config.h"

namespace lc {

struct FolderConfig {
  LangCellConfig model;
  double temperature = 0.05;         // τ of the contrastive losses
  std::vector<std::string> history;  // one line per thing the weights went through: what they were trained on, where they came from
};

void write_folder_config(const std::filesystem::path& folder, const FolderConfig& config);  // all three; text_bert's only with a text tower
// Reads what is there; ModelError naming file and key. Types of the text tower and the projection come from the tensors, not from here.
FolderConfig read_folder_config(const std::filesystem::path& folder);
// One tower's sizes from its config.json (a BertConfig of Hugging Face); ModelError naming file and key.
TowerConfig read_bert_config(const std::filesystem::path& path);
void write_bert_config(const std::filesystem::path& path, const TowerConfig& tower);
bool has_text_tower(const std::filesystem::path& folder);

}  // namespace lc
