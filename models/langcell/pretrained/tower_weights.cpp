#include "models/langcell/pretrained/tower_weights.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>

#include "engine/errors.h"
#include "models/langcell/folder_config.h"
#include "models/langcell/model_folder.h"

namespace lc {
namespace {

constexpr std::string_view kWords = "embeddings.word_embeddings.weight", kPositions = "embeddings.position_embeddings.weight",
                           kTypes = "embeddings.token_type_embeddings.weight";

// "bert.encoder…" (BertForMaskedLM) and "encoder…" (BertModel) are one name.
std::string without_prefix(const std::string& name) { return name.starts_with("bert.") ? name.substr(5) : name; }

// Why a tensor of the file has no place in this model, or "" where it must have one.
std::string reason_to_ignore(const std::string& name, TowerSource source, const LangCell& model) {
  if (name.ends_with("position_ids")) return "a buffer that counts from 0";
  if (name.starts_with("pooler.")) return "the pooler is not used: position 0 is projected instead";
  if (name.starts_with("cls.seq_relationship.")) return "the next-sentence head is not used";
  if (name.starts_with("cls.predictions.decoder.")) return "tied to the word embeddings and predictions.bias";
  if (name.starts_with("cls.predictions.") && (source != TowerSource::geneformer || !model.has_mgm_head()))
    return "the language head is not used";
  if (source == TowerSource::text_bert && name == kTypes) return "row 0 is folded into the positions";
  return "";
}

// The parameter that a tensor of this name fills.
std::string parameter_of(const std::string& part, const std::string& name) {
  constexpr std::string_view head = "cls.predictions.";
  return name.starts_with(head) ? "mgm_head." + name.substr(head.size()) : part + "." + name;
}

// The tables of a Geneformer have one row fewer than ours: it knows no <cls>.
Shape shape_in_file(const NamedParameter& p, TowerSource source) {
  const bool by_gene = p.name == "cell_bert.embeddings.word_embeddings.weight" || p.name == "mgm_head.bias";
  if (source != TowerSource::geneformer || !by_gene) return p.shape;
  return p.shape.rank() == 1 ? Shape{p.shape[0] - 1} : Shape{p.shape[0] - 1, p.shape[1]};
}

struct Matched {
  std::vector<StoredTensor> tensors;  // under our names
  std::vector<std::size_t> index;     // of each, in the file
  TensorAccount account;
};

Matched match(const TensorFiles& files, TowerSource source, const std::string& part, const LangCell& model) {
  Matched m;
  m.account.part = part;
  std::set<std::string> names;
  for (std::size_t i = 0; i < files.tensors().size(); ++i) {
    const StoredTensor& t = files.tensors()[i];
    const std::string name = without_prefix(t.name);
    if (std::string reason = reason_to_ignore(name, source, model); !reason.empty()) {
      m.account.ignored.push_back({t.name, std::move(reason)});
      continue;
    }
    m.tensors.push_back(t);
    m.tensors.back().name = parameter_of(part, name);
    m.index.push_back(i);
    if (!names.insert(m.tensors.back().name).second)
      throw ModelError(
          fmt::format("{}:{}: the tensor is there with and without the prefix 'bert.'; save one of them", files.where(), t.name));
  }
  return m;
}

TensorAccount fill(const TensorFiles& files, TowerSource source, const std::string& part, LangCell& model) {
  Matched m = match(files, source, part, model);
  const bool has_head =
      std::any_of(m.tensors.begin(), m.tensors.end(), [](const StoredTensor& t) { return t.name.starts_with("mgm_head."); });
  std::vector<WantedTensor> wanted;
  for (const NamedParameter& p : model.parameters().named()) {
    const bool head = source == TowerSource::geneformer && p.name.starts_with("mgm_head.");
    if (!p.name.starts_with(part + ".") && !head) continue;
    const bool fresh = source == TowerSource::text_bert ? p.name.find(".crossattention.") != std::string::npos : head && !has_head;
    if (fresh)
      m.account.fresh.push_back(p.name);
    else
      wanted.push_back({p.name, shape_in_file(p, source)});
  }
  require_tensors(files.where(), m.tensors, wanted);
  for (std::size_t i = 0; i < m.tensors.size(); ++i) {
    const NamedParameter& p = *model.parameters().find(m.tensors[i].name);
    model.parameters().put(model.parameters().master(p), p,
                           [&](std::span<float> values) { files.read(m.index[i], values.first(m.tensors[i].elements())); });
    ++m.account.loaded;
  }
  return m.account;
}

// positions[i] += types[0]: every token of a text has type 0.
void fold_types(const TensorFiles& files, const std::string& part, LangCell& model) {
  const auto& all = files.tensors();
  const auto types = std::find_if(all.begin(), all.end(), [](const StoredTensor& t) { return without_prefix(t.name) == kTypes; });
  if (types == all.end()) return;
  const NamedParameter& positions = *model.parameters().find(fmt::format("{}.{}", part, kPositions));
  if (types->shape.size() != 2 || types->shape[0] < 1 || types->shape[1] != positions.shape[1] || !is_weight(types->type)) {
    throw ModelError(fmt::format("{}:{}: wanted shape (types, {}) of floats, got {} ({}); take weights and config.json from one model",
                                 files.where(), types->name, positions.shape[1], name_of(types->type), fmt::join(types->shape, ", ")));
  }
  std::vector<float> row(static_cast<std::size_t>(positions.shape[1]));
  files.read(static_cast<std::size_t>(types - all.begin()), row);
  model.parameters().put(model.parameters().master(positions), positions, [&](std::span<float> to) {
    for (std::size_t i = 0; i < to.size(); ++i) to[i] += row[i % row.size()];
  });
}

const StoredTensor* find(const TensorFiles& files, std::string_view name) {
  const auto& all = files.tensors();
  const auto at = std::find_if(all.begin(), all.end(), [&](const StoredTensor& t) { return without_prefix(t.name) == name; });
  return at == all.end() ? nullptr : &*at;
}

// What config.json claims must be in the file before memory is taken for it.
void require_size(const TensorFiles& files, const std::string& tensor, std::vector<std::int64_t> shape, const char* keys) {
  const StoredTensor* t = find(files, tensor);
  if (t && t->shape == shape) return;
  throw ModelError(fmt::format("{}:{}: wanted shape ({}), by {} of its config.json, got {}; take weights and config.json from one model",
                               files.where(), tensor, fmt::join(shape, ", "), keys,
                               t ? fmt::format("({})", fmt::join(t->shape, ", ")) : "no such tensor"));
}

}  // namespace

TowerConfig read_tower(const std::filesystem::path& folder, const TensorFiles& files, TowerSource source) {
  TowerConfig t = read_bert_config(folder / "config.json");
  require_size(files, std::string(kWords), {t.vocabulary, t.width}, "vocab_size and hidden_size");
  require_size(files, std::string(kPositions), {t.positions, t.width}, "max_position_embeddings and hidden_size");
  for (const int layer : {0, t.layers - 1}) {
    require_size(files, fmt::format("encoder.layer.{}.intermediate.dense.weight", layer), {t.ffn, t.width},
                 "num_hidden_layers, intermediate_size and hidden_size");
  }
  if (find(files, fmt::format("encoder.layer.{}.intermediate.dense.weight", t.layers))) {
    throw ModelError(fmt::format("{}: has a layer {}, but num_hidden_layers of its config.json is {}; take both from one model",
                                 files.where(), t.layers, t.layers));
  }
  const StoredTensor* cross = find(files, "encoder.layer.0.crossattention.self.key.weight");
  const std::int64_t cross_width = cross && cross->shape.size() == 2 && source == TowerSource::langcell ? cross->shape[1] : 0;
  if (cross_width && t.cross_width && cross_width != t.cross_width) {
    throw ModelError(fmt::format("{}:{}: wanted {} columns, the encoder_width of its config.json, got {}; take both from one model",
                                 files.where(), cross->name, t.cross_width, cross_width));
  }
  t.cross_width = static_cast<int>(std::min<std::int64_t>(cross_width, 1 << 16));
  const StoredTensor* types = find(files, kTypes);
  if (source == TowerSource::text_bert || !types)
    t.types = 0;
  else
    require_size(files, std::string(kTypes), {t.types, t.width}, "type_vocab_size and hidden_size");
  if (source == TowerSource::geneformer) ++t.vocabulary;
  return t;
}

TensorAccount fill_tower(const TensorFiles& files, TowerSource source, const std::string& part, LangCell& model) {
  TensorAccount account = fill(files, source, part, model);
  if (source == TowerSource::text_bert) fold_types(files, part, model);
  return account;
}

TensorAccount fill_head(const TensorFiles& files, const std::string& part, LangCell& model) {
  return fill(files, TowerSource::langcell, part, model);
}

std::string text_of(const TensorAccount& account) {
  std::map<std::string, int> reasons;
  for (const IgnoredTensor& t : account.ignored) ++reasons[t.reason];
  std::string text = fmt::format("{}: {} tensors loaded", account.part, account.loaded);
  for (const auto& [reason, count] : reasons) text += fmt::format(", {} ignored ({})", count, reason);
  if (!account.fresh.empty()) text += fmt::format(", {} new ({} …)", account.fresh.size(), account.fresh.front());
  return text;
}

}  // namespace lc
