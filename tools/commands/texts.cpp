// langcell texts: an ontology's words for the labels of a file, as T.json.
#include <fmt/format.h>

#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "engine/atomic_file.h"
#include "engine/errors.h"
#include "models/langcell/data/ontology.h"
#include "tools/anndata/counts.h"
#include "tools/commands/command.h"
#include "tools/commands/counts_flags.h"
#include "tools/commands/outputs.h"
#include "tools/evaluation/annotated_file.h"

namespace lc {
namespace {

namespace fs = std::filesystem;

struct TextsFlags {
  Common common;
  fs::path obo, from, map, out;
  std::string key, field = "cell type";
  std::vector<std::string> terms;
  bool allow_missing = false, overwrite = false;
};

struct Wanted {
  std::string label;
  std::uint64_t cells = 0;
};

std::vector<Wanted> wanted_of(const TextsFlags& f) {
  std::vector<Wanted> wanted;
  for (const std::string& term : f.terms) wanted.push_back({term});
  if (f.from.empty()) return wanted;
  const Categorical labels = open_cells(f.from).categorical(f.key);
  std::vector<std::uint64_t> cells(labels.categories.size(), 0);
  for (const std::int32_t code : labels.codes)
    if (code >= 0) ++cells[static_cast<size_t>(code)];
  for (size_t i = 0; i < cells.size(); ++i)
    if (cells[i] > 0) wanted.push_back({labels.categories[i], cells[i]});
  return wanted;
}

void run_texts(const TextsFlags& f) {
  begin(f.common);
  if (f.terms.empty() == f.from.empty()) throw UsageError("texts: give either --terms or --from with --key");
  if (!f.from.empty() && f.key.empty()) throw UsageError("texts: --from needs --key, the column of obs with the labels");
  require_not_an_input(f.out, std::vector<fs::path>{f.obo, f.from, f.map});
  const Ontology ontology = Ontology::read(f.obo);
  const LabelMap map = f.map.empty() ? LabelMap{} : read_label_map(f.map);
  nlohmann::ordered_json texts = nlohmann::ordered_json::object();
  std::map<const Term*, std::string> owner;
  std::vector<std::string> missing, without_definition;
  for (const Wanted& wanted : wanted_of(f)) {
    const auto renamed = map.find(wanted.label);
    const std::string& name = renamed == map.end() ? wanted.label : renamed->second;
    const Term* const term = ontology.look_up(name);
    if (!term) {
      const Term* const known = ontology.find(name);
      missing.push_back(fmt::format("'{}'{}{}{}", wanted.label, renamed == map.end() ? "" : fmt::format(" (by --map '{}')", name),
                                    known && known->obsolete ? " (obsolete, without one replacement)" : "",
                                    wanted.cells ? fmt::format(" ({} cells)", wanted.cells) : ""));
      continue;
    }
    const std::string label = f.from.empty() ? term->name : wanted.label;
    if (const auto [entry, is_new] = owner.emplace(term, label); !is_new) {
      if (f.from.empty()) continue;  // a term asked for twice
      throw DataError(fmt::format(
          "{}: '{}' and '{}' are both {} ({}); nothing could tell them apart: rename one in {}, or give it another term with --map",
          f.from.string(), entry->second, label, term->name, term->id, f.key));
    }
    if (term->definition.empty()) without_definition.push_back(term->name);
    if (term->id != name && term->name != name) say(f.common, fmt::format("'{}' is {} ({})", wanted.label, term->name, term->id));
    texts[label] = {{"text", fmt::format("{}: {}.{}", f.field, term->name, term->definition.empty() ? "" : " " + term->definition)},
                    {"ontology_id", term->id}};
  }
  const std::string listed =
      fmt::format("{} of the labels are no id, name or exact synonym of one term: {}", missing.size(), fmt::join(missing, ", "));
  if (!missing.empty() && !f.allow_missing)
    throw DataError(
        fmt::format("{}: {}; map them with --map (label, tab, term), or leave them out with --allow-missing", f.obo.string(), listed));
  if (!missing.empty()) warn(listed + "; left out");
  if (!without_definition.empty())
    warn(fmt::format("{} terms have no definition, only a name: {}", without_definition.size(), fmt::join(without_definition, ", ")));
  if (texts.empty()) throw DataError(fmt::format("{}: no label has a term, so there is nothing to write", f.obo.string()));
  AtomicFile out(f.out, f.overwrite ? Existing::replace : Existing::refuse);
  out.write(texts.dump(2) + "\n");
  out.commit();
  if (f.common.json)
    fmt::print("{}\n", nlohmann::ordered_json{{"out", f.out.string()}, {"texts", texts.size()}, {"missing", missing.size()}}.dump());
  else
    fmt::print("{}: {} texts{}\n", f.out.string(), texts.size(),
               missing.empty() ? "" : fmt::format(", {} labels without one", missing.size()));
  end(f.common);
}

}  // namespace

void register_texts(Command program) {
  Command c = add_command(program, "texts", "texts for labels from an ontology: name and definition of the term each label means",
                          "langcell texts --obo cl.obo --from cells.h5ad --key cell_type --out texts.json\n"
                          "  langcell texts --obo cl.obo --terms CL:0000236 --terms 'natural killer cell' --out texts.json");
  const auto f = std::make_shared<TextsFlags>();
  c.add_option("--obo", f->obo, "the ontology").required().type_name("F.obo");
  c.add_option("--terms", f->terms, "a term by id, name or exact synonym; may be given again").once_each().type_name("TERM");
  c.add_option("--from", f->from, "a file whose labels need texts (.h5ad)").type_name("IN");
  c.add_option("--key", f->key, "its column of obs with the labels").type_name("KEY");
  c.add_option("--map", f->map, "label, tab, term: for labels the ontology does not know").type_name("M.tsv");
  c.add_option("--field", f->field, "what the text begins with").capture_default_str();
  c.add_option("--out", f->out, "the texts to write").required().type_name("T.json");
  c.add_flag("--allow-missing", f->allow_missing, "leave out labels without a term");
  c.add_flag("--overwrite", f->overwrite, "replace an existing file");
  c.add_flag("--quiet", f->common.quiet, "no notes on standard error");
  c.add_flag("--json", f->common.json, "the result as one JSON object on standard output");
  c.callback([f] { run_texts(*f); });
}

}  // namespace lc
