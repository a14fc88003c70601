// Small readers over tools/anndata.
#include "tools/evaluation/annotated_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "engine/atomic_file.h"
#include "engine/errors.h"
#include "tools/anndata/counts.h"
#include "tools/anndata/frame.h"
#include "tools/evaluation/metrics.h"

namespace lc {
namespace {

namespace fs = std::filesystem;

Frame obs_of(const Hdf5& file) {
  if (!file.has("obs")) throw DataError(fmt::format("{}: has no obs: not an .h5ad file", file.where()));
  return Frame(file.at("obs"));
}

void require_column(const Frame& obs, const std::string& column) {
  if (obs.has(column)) return;
  throw DataError(fmt::format("{}: no column '{}'; there are: {}", obs.group().where(), column, fmt::join(obs.columns(), ", ")));
}

std::string prefix_of(const std::string& prediction) {
  for (const std::string ending : {"_label_final", "_label"}) {
    if (prediction.size() > ending.size() && prediction.ends_with(ending)) return prediction.substr(0, prediction.size() - ending.size());
  }
  return prediction;
}

bool is_true(const std::string& text) { return text == "True" || text == "true" || text == "TRUE" || text == "1"; }

void read_unassigned(const Frame& obs, const std::string& prefix, AnnotatedFile& out) {
  std::vector<std::string> marks, reasons;
  if (obs.has(prefix + "_unassigned")) marks = obs.strings(prefix + "_unassigned");
  if (obs.has(prefix + "_reason")) reasons = obs.strings(prefix + "_reason");
  std::map<std::string, size_t> counted;
  for (size_t i = 0; i < out.prediction.size(); ++i) {
    const bool unassigned = marks.empty() ? out.prediction[i].empty() || out.prediction[i] == kUnassigned : is_true(marks[i]);
    out.marked.push_back(unassigned);
    if (!unassigned) continue;
    ++out.unassigned;
    if (!reasons.empty() && !reasons[i].empty()) ++counted[reasons[i]];
  }
  out.reasons.assign(counted.begin(), counted.end());
}

void read_embedding(const Hdf5& file, const std::string& prefix, AnnotatedFile& out) {
  const std::string path = "obsm/X_" + prefix;
  if (!file.has_dataset(path)) return;
  const Hdf5 z = file.at(path);
  if (z.shape().size() != 2 || z.shape()[0] != out.names.size()) return;
  out.width = z.shape()[1];
  out.z = z.read<float>();
}

}  // namespace

LabelMap read_label_map(const fs::path& tsv) {
  LabelMap map;
  const std::string text = read_file(tsv);
  size_t begin = 0;
  for (size_t number = 1; begin < text.size(); ++number) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty() || line[0] == '#') continue;
    const size_t tab = line.find('\t');
    if (tab == std::string::npos || tab == 0 || line.find('\t', tab + 1) != std::string::npos) {
      throw DataError(
          fmt::format("{}: line {}: wanted two columns separated by a tab (label in the file, label of the texts)", tsv.string(), number));
    }
    if (!map.emplace(line.substr(0, tab), line.substr(tab + 1)).second) {
      throw DataError(fmt::format("{}: line {}: '{}' is mapped twice", tsv.string(), number, line.substr(0, tab)));
    }
  }
  return map;
}

std::vector<std::string> read_labels(const fs::path& file, const std::string& column, const LabelMap& renamed) {
  const Frame obs = obs_of(Hdf5::open(file));
  require_column(obs, column);
  std::vector<std::string> labels = obs.strings(column);
  for (auto& label : labels) {
    const auto found = renamed.find(label);
    if (found != renamed.end()) label = found->second;
  }
  return labels;
}

AnnotatedFile read_annotated(const fs::path& path, const std::string& prediction) {
  const Hdf5 file = Hdf5::open(path);
  const Frame obs = obs_of(file);
  require_column(obs, prediction);
  const std::string prefix = prefix_of(prediction);
  AnnotatedFile out;
  out.names = obs.index();
  const Categorical labels = obs.categorical(prediction);
  for (size_t i = 0; i < labels.codes.size(); ++i) out.prediction.push_back(labels.label(i));
  out.categories = labels.categories;
  std::erase(out.categories, std::string(kUnassigned));
  if (obs.has(prefix + "_score")) out.score = obs.numbers(prefix + "_score");
  read_unassigned(obs, prefix, out);
  read_embedding(file, prefix, out);
  if (file.has_group("uns/" + prefix)) out.uns = read_json(file.at("uns/" + prefix));
  if (out.uns.is_object() && out.uns.contains("labels")) {
    for (const auto& label : out.uns["labels"]) out.texts.push_back(label.is_string() ? label.get<std::string>() : label.dump());
  }
  return out;
}

NamedCounts read_counts(const fs::path& file) {
  constexpr std::uint64_t kCells = 4096;
  const CountMatrix matrix = open_counts(file);
  NamedCounts out;
  out.genes = matrix.gene_ids();
  out.counts.rows = matrix.n_cells();
  out.counts.columns = matrix.n_genes();
  out.counts.indptr.push_back(0);
  matrix.for_each_block(kCells, [&](CsrBlock&& block) {
    const auto base = static_cast<int64_t>(out.counts.indices.size());
    for (size_t r = 1; r < block.offsets.size(); ++r) out.counts.indptr.push_back(base + static_cast<int64_t>(block.offsets[r]));
    out.counts.indices.insert(out.counts.indices.end(), block.genes.begin(), block.genes.end());
    out.counts.values.insert(out.counts.values.end(), block.values.begin(), block.values.end());
  });
  return out;
}

nlohmann::json read_json(const Hdf5& object) {
  if (object.is_group()) {
    nlohmann::json out = nlohmann::json::object();
    for (const auto& name : object.children()) {
      nlohmann::json value = read_json(object.at(name));
      if (!value.is_null()) out[name] = std::move(value);
    }
    return out;
  }
  if (object.is_null() || object.shape().size() > 1) return nullptr;
  nlohmann::json values = nullptr;
  switch (object.kind()) {
    case H5Kind::text:
      values = object.read_strings();
      break;
    case H5Kind::integer:
      values = object.read<std::int64_t>();
      break;
    case H5Kind::floating:
      values = object.read<double>();
      break;
    case H5Kind::boolean:
      values = nlohmann::json::array();
      for (std::int64_t flag : object.read<std::int64_t>()) values.push_back(flag != 0);
      break;
    default:
      return nullptr;
  }
  return object.shape().empty() && values.size() == 1 ? values[0] : values;
}

}  // namespace lc
