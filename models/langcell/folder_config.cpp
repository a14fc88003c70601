#include "models/langcell/folder_config.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/safetensors.h"
#include "models/langcell/json_file.h"

namespace lc {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using kernels::Activation;

constexpr int kFormatVersion = 1;
constexpr std::int64_t kMostLayers = 1000, kWidest = 1 << 16, kMostRows = 1 << 28;

double shortest(float x) { return std::stod(fmt::format("{}", x)); }  // 1e-12, not 9.999999960041972e-13

Json bert_config(const TowerConfig& t) {
  Json c{{"architectures", {"BertModel"}},
         {"model_type", "bert"},
         {"hidden_size", t.width},
         {"num_hidden_layers", t.layers},
         {"num_attention_heads", t.heads},
         {"intermediate_size", t.ffn},
         {"hidden_act", t.activation == Activation::relu ? "relu" : "gelu"},
         {"hidden_dropout_prob", shortest(t.hidden_dropout)},
         {"attention_probs_dropout_prob", shortest(t.attention_dropout)},
         {"layer_norm_eps", shortest(t.eps)},
         {"initializer_range", 0.02},
         {"max_position_embeddings", t.positions},
         {"position_embedding_type", "absolute"},
         {"type_vocab_size", t.types ? t.types : 2},  // as the published text tower, which says 2 and has no such table
         {"vocab_size", t.vocabulary},
         {"pad_token_id", 0},
         {"torch_dtype", "float32"}};
  if (t.cross_width) c["add_cross_attention"] = true, c["encoder_width"] = t.cross_width;
  return c;
}

void write_json(const fs::path& path, const Json& json) {
  write_file(path, json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

int size_of_key(const JsonFile& file, const std::string& key, std::int64_t most) {
  return static_cast<int>(file.between<std::int64_t>(key, 1, most));
}

// The sizes as the folder's own config.json shows them.
std::vector<std::pair<const char*, std::int64_t>> sizes_of(const TowerConfig& t) {
  return {{"layers", t.layers}, {"width", t.width},         {"heads", t.heads},
          {"ffn", t.ffn},       {"positions", t.positions}, {"vocabulary", t.vocabulary}};
}

Json sizes(const TowerConfig& t) {
  Json s = Json::object();
  for (const auto& [key, value] : sizes_of(t)) s[key] = value;
  return s;
}

void require_agreement(const JsonFile& file, const char* tower, const TowerConfig& t) {
  if (!file.has(tower)) return;
  const JsonFile stated = file.object(tower);
  for (const auto& [key, value] : sizes_of(t)) {
    if (stated.get<std::int64_t>(key) != value) stated.refuse(key, fmt::format("{}, as the tower's own config.json says", value));
  }
}

const char* name_of(Initialisation initialisation) { return initialisation == Initialisation::fan_in ? "fan_in" : "fixed"; }

void read_own(const JsonFile& file, FolderConfig& config) {
  LangCellConfig& m = config.model;
  if (file.get_or<std::int64_t>("version", kFormatVersion) > kFormatVersion) {
    file.refuse("version", fmt::format("at most {}, which is what this program reads", kFormatVersion));
  }
  m.preset = file.get<std::string>("preset");
  const std::string initialisation = file.get_or<std::string>("initialisation", "fixed");
  if (initialisation != "fixed" && initialisation != "fan_in") file.refuse("initialisation", "fixed or fan_in");
  m.initialisation = initialisation == "fan_in" ? Initialisation::fan_in : Initialisation::fixed;
  m.max_cell_tokens = static_cast<int>(file.between<std::int64_t>("max_cell_tokens", 2, m.cell.positions));
  if (file.has("max_text_tokens"))
    m.max_text_tokens = static_cast<int>(file.between<std::int64_t>("max_text_tokens", 2, m.text.layers ? m.text.positions : kWidest));
  if (file.has("temperature")) config.temperature = file.between<double>("temperature", 1e-6, 1e6);
  config.history = file.get_or<std::vector<std::string>>("history", {});
  require_agreement(file, "cell", m.cell);
  if (m.text.layers) require_agreement(file, "text", m.text);
  if (file.has("projection") && file.get<std::int64_t>("projection") != m.projection) {
    file.refuse("projection", fmt::format("{}, the rows of cell_proj.safetensors:weight", m.projection));
  }
}

}  // namespace

TowerConfig read_bert_config(const fs::path& path) {
  const JsonFile file(path);
  TowerConfig t;
  t.width = size_of_key(file, "hidden_size", kWidest), t.layers = size_of_key(file, "num_hidden_layers", kMostLayers);
  t.heads = size_of_key(file, "num_attention_heads", kWidest), t.ffn = size_of_key(file, "intermediate_size", kWidest);
  t.positions = size_of_key(file, "max_position_embeddings", kWidest), t.vocabulary = size_of_key(file, "vocab_size", kMostRows);
  t.types = static_cast<int>(file.between<std::int64_t>("type_vocab_size", 0, kWidest));
  const std::string activation = file.get<std::string>("hidden_act");
  if (activation != "relu" && activation != "gelu") file.refuse("hidden_act", "relu or gelu");
  t.activation = activation == "relu" ? Activation::relu : Activation::gelu;
  t.hidden_dropout = static_cast<float>(file.between<double>("hidden_dropout_prob", 0, 0.99));
  t.attention_dropout = static_cast<float>(file.between<double>("attention_probs_dropout_prob", 0, 0.99));
  t.eps = static_cast<float>(file.between<double>("layer_norm_eps", 0, 1));
  if (file.get_or<std::string>("position_embedding_type", "absolute") != "absolute") file.refuse("position_embedding_type", "absolute");
  if (file.get_or<bool>("add_cross_attention", false)) t.cross_width = size_of_key(file, "encoder_width", kWidest);
  return t;
}

void write_bert_config(const fs::path& path, const TowerConfig& tower) { write_json(path, bert_config(tower)); }

bool has_text_tower(const fs::path& folder) { return is_file(folder / "text_bert" / "config.json"); }

void write_folder_config(const fs::path& folder, const FolderConfig& config) {
  const LangCellConfig& m = config.model;
  Json own{{"format", "langcell model"},
           {"version", kFormatVersion},
           {"preset", m.preset},
           {"max_cell_tokens", m.max_cell_tokens},
           {"max_text_tokens", m.max_text_tokens},
           {"initialisation", name_of(m.initialisation)},
           {"temperature", config.temperature},
           {"projection", m.projection},
           {"cell", sizes(m.cell)}};
  if (m.text.layers) own["text"] = sizes(m.text);
  own["history"] = config.history;
  write_json(folder / "config.json", own);
  write_bert_config(folder / "cell_bert" / "config.json", m.cell);
  if (m.text.layers) write_bert_config(folder / "text_bert" / "config.json", m.text);
}

FolderConfig read_folder_config(const fs::path& folder) {
  if (!is_file(folder / "config.json"))
    throw ModelError(fmt::format("{}: no config.json in it, so it is not a model folder; check the path", folder.string()));
  FolderConfig config;
  LangCellConfig& m = config.model;
  m.cell = read_bert_config(folder / "cell_bert" / "config.json");
  m.cell.cross_width = 0;
  if (has_text_tower(folder)) {
    m.text = read_bert_config(folder / "text_bert" / "config.json");
    if (!SafetensorsReader(folder / "text_bert" / "model.safetensors").find("embeddings.token_type_embeddings.weight")) m.text.types = 0;
  }
  if (is_file(folder / "cell_proj.safetensors")) {
    const StoredTensor weight = SafetensorsReader(folder / "cell_proj.safetensors").at("weight");
    m.projection = weight.shape.empty() ? 0 : static_cast<int>(std::clamp<std::int64_t>(weight.shape[0], 1, kWidest));
  }
  read_own(JsonFile(folder / "config.json"), config);
  require_valid(m);
  return config;
}

}  // namespace lc
