#include "models/langcell/model_folder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <map>
#include <set>
#include <system_error>

#include "models/langcell/folder_config.h"
#include "models/langcell/json_file.h"
#include "models/langcell/model_card.h"

namespace lc {
namespace {

namespace fs = std::filesystem;

struct Place {
  std::string file, name;
};

Place place_of(const std::string& parameter) {
  const std::size_t dot = parameter.find('.');
  const std::string part = parameter.substr(0, dot);
  return {part.ends_with("_bert") ? part + "/model.safetensors" : part + ".safetensors", parameter.substr(dot + 1)};
}

// The parameters of each file, in the order of the arena.
std::map<std::string, std::vector<const NamedParameter*>> by_file(const LangCell& model) {
  std::map<std::string, std::vector<const NamedParameter*>> files;
  for (const NamedParameter& p : model.parameters().named()) files[place_of(p.name).file].push_back(&p);
  return files;
}

std::string listed(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 8;
  const std::vector<std::string> first(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(std::min(names.size(), kShown)));
  return fmt::format("{} ({}{})", names.size(), fmt::join(first, ", "), names.size() > kShown ? ", …" : "");
}

void require_finite(const SafetensorsReader& reader, const std::string& name, std::span<const float> values) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(values[i])) continue;
    throw ModelError(fmt::format("{}:{}: element {} is {}; such weights give no result: use another checkpoint", reader.path().string(),
                                 name, i, values[i]));
  }
}

void read_file_of(const fs::path& path, const std::vector<const NamedParameter*>& parameters, LangCell& model) {
  const SafetensorsReader reader(path);
  std::vector<WantedTensor> wanted;
  for (const NamedParameter* p : parameters) wanted.push_back({place_of(p->name).name, p->shape});
  require_tensors(path.string(), reader.tensors(), wanted);
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    Parameters& all = model.parameters();
    all.put(all.master(*parameters[i]), *parameters[i], [&](std::span<float> values) {
      reader.read(wanted[i].name, values);
      require_finite(reader, wanted[i].name, values);
    });
  }
}

// Before memory is taken for what config.json claims: its largest table must be in the file.
void require_table(const fs::path& tower, const TowerConfig& config) {
  const SafetensorsReader reader(tower / "model.safetensors");
  const StoredTensor* table = reader.find("embeddings.word_embeddings.weight");
  if (table && table->shape == std::vector<std::int64_t>{config.vocabulary, config.width}) return;
  throw ModelError(fmt::format(
      "{}:embeddings.word_embeddings.weight: wanted shape ({}, {}), the vocab_size and hidden_size of its config.json, got {}; take both "
      "from one model",
      reader.path().string(), config.vocabulary, config.width, table ? fmt::format("({})", fmt::join(table->shape, ", ")) : "nothing"));
}

ModelFacts read_facts(const fs::path& folder, const FolderConfig& config) {
  ModelFacts facts;
  facts.temperature = config.temperature, facts.history = config.history;
  facts.genes = as_model_error([&] { return GeneVocabulary::read(folder / "genes.tsv"); });
  if (facts.genes.size() != config.model.cell.vocabulary) {
    throw ModelError(
        fmt::format("{}: wanted {} tokens with <cls>, the vocab_size of cell_bert/config.json, got {}; take both from one model",
                    (folder / "genes.tsv").string(), config.model.cell.vocabulary, facts.genes.size()));
  }
  if (config.model.text.layers > 0) {
    facts.word_piece = as_model_error([&] { return WordPiece::read(folder / "text_bert" / "vocab.txt"); });
    facts.word_piece.require_fits(config.model.text.vocabulary, (folder / "text_bert" / "vocab.txt").string());
  }
  return facts;
}

// A tower's heads come with it: one without the other is a damaged folder, not a smaller model.
void require_heads(const fs::path& folder) {
  const bool tower = has_text_tower(folder);
  for (const char* head : {"text_proj.safetensors", "ctm_head.safetensors"}) {
    if (is_file(folder / head) == tower) continue;
    throw ModelError(fmt::format("{}: {} is there without {}; the folder is incomplete: take a complete copy", folder.string(),
                                 tower ? "text_bert" : head, tower ? head : "text_bert/config.json"));
  }
  if (tower && !is_file(folder / "cell_proj.safetensors")) {
    throw ModelError(fmt::format("{}: text_bert is there without cell_proj.safetensors; the folder is incomplete: take a complete copy",
                                 folder.string()));
  }
}

}  // namespace

std::vector<std::int64_t> stored_shape(const Shape& shape) {
  std::vector<std::int64_t> sizes;
  for (int i = 0; i < shape.rank(); ++i) sizes.push_back(shape[i]);
  return sizes;
}

LangCell::Parts parts_in(const fs::path& folder) {
  const auto part = [](bool there) { return there ? LangCell::Part::required : LangCell::Part::absent; };
  return {part(has_text_tower(folder)), part(is_file(folder / "mgm_head.safetensors"))};
}

bool in_parts(const NamedParameter& parameter, const LangCell::Parts& parts) {
  const auto of = [&](const char* prefix) { return parameter.name.starts_with(prefix); };
  if (of("mgm_head.")) return parts.mgm_head == LangCell::Part::required;
  if (of("text_bert.") || of("text_proj.") || of("ctm_head.")) return parts.text == LangCell::Part::required;
  return true;
}

void require_tensors(const std::string& where, std::span<const StoredTensor> found, const std::vector<WantedTensor>& wanted) {
  std::vector<std::string> missing, unexpected, shaped, typed;
  std::map<std::string, Shape> by_name;
  std::set<std::string_view> there;
  for (const StoredTensor& t : found) there.insert(t.name);
  for (const WantedTensor& w : wanted) {
    by_name.emplace(w.name, w.shape);
    if (!there.contains(w.name)) missing.push_back(w.name);
  }
  for (const StoredTensor& t : found) {
    const auto at = by_name.find(t.name);
    if (at == by_name.end())
      unexpected.push_back(t.name);
    else if (t.shape != stored_shape(at->second))
      shaped.push_back(fmt::format("{}: wanted {}, got ({})", t.name, at->second.text(), fmt::join(t.shape, ", ")));
    else if (!is_weight(t.type))
      typed.push_back(fmt::format("{}: {}", t.name, name_of(t.type)));
  }
  std::vector<std::string> wrong;
  if (!missing.empty()) wrong.push_back("missing " + listed(missing));
  if (!unexpected.empty()) wrong.push_back("unexpected " + listed(unexpected));
  if (!shaped.empty()) wrong.push_back("of another shape " + listed(shaped));
  if (!typed.empty()) wrong.push_back("of a type that is no weight's " + listed(typed));
  if (wrong.empty()) return;
  throw ModelError(fmt::format("{}: tensors that do not fit the configuration: {}; take weights and config.json from one model", where,
                               fmt::join(wrong, "; ")));
}

void write_model(const fs::path& folder, const LangCell& model, const ModelFacts& facts, const LangCell::Parts& parts,
                 const WeightsOf& weights) {
  FolderConfig config{model.config(), facts.temperature, facts.history};
  if (!model.has_text() || parts.text == LangCell::Part::absent) config.model.text = {};
  std::error_code ignored;  // a folder that cannot be made is named by the first file in it
  fs::create_directories(folder / "cell_bert", ignored);
  if (config.model.text.layers > 0) fs::create_directories(folder / "text_bert", ignored);
  write_folder_config(folder, config);
  facts.genes.write(folder / "genes.tsv");
  if (config.model.text.layers > 0) facts.word_piece.write(folder / "text_bert" / "vocab.txt");
  for (const auto& [file, parameters] : by_file(model)) {
    if (!in_parts(*parameters.front(), parts)) continue;
    std::vector<TensorToStore> tensors;
    std::vector<HostNumbers> held;
    for (const NamedParameter* p : parameters) {
      held.push_back(weights ? weights(*p) : model.parameters().numbers(model.parameters().master(*p), *p));
      tensors.push_back({place_of(p->name).name, StoredType::f32, stored_shape(p->shape), std::as_bytes(held.back().values)});
    }
    write_safetensors(folder / file, std::move(tensors));
  }
  write_file(folder / "MODEL_CARD.md", model_card(model, config, parts));
}

void save_model(const fs::path& path, const LangCell& model, const ModelFacts& facts, Existing existing) {
  AtomicFolder folder(path, existing);
  write_model(folder.partial_path(), model, facts);
  write_manifest(folder.partial_path());
  folder.commit();
}

void read_weights(const fs::path& folder, LangCell& model, Missing missing) {
  for (const auto& [file, parameters] : by_file(model)) {
    if (missing == Missing::keep && !is_file(folder / file)) continue;
    read_file_of(folder / file, parameters, model);
  }
  model.parameters().refresh_storage();
}

LoadedModel load_model(const fs::path& folder, const LoadOptions& options) {
  std::error_code ignored;
  if (fs::is_regular_file(folder, ignored)) throw ModelError(fmt::format("{}: is a file, wanted a model folder", folder.string()));
  if (!fs::is_directory(folder, ignored)) throw ModelError(fmt::format("{}: no such model folder; check the path", folder.string()));
  if (has_manifest(folder)) verify_manifest(folder, read_manifest(folder), options.verify);
  const FolderConfig config = read_folder_config(folder);
  require_heads(folder);
  require_table(folder / "cell_bert", config.model.cell);
  if (config.model.text.layers > 0) require_table(folder / "text_bert", config.model.text);
  LoadedModel loaded{nullptr, read_facts(folder, config), content_hash(folder)};
  loaded.model = std::make_unique<LangCell>(config.model, parts_in(folder), options.storage, options.queue);
  read_weights(folder, *loaded.model);
  return loaded;
}

}  // namespace lc
