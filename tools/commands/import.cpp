// langcell import: the published LangCell bundle, or a Geneformer folder, to a model folder.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "engine/errors.h"
#include "models/langcell/json_file.h"
#include "models/langcell/pretrained/bundle.h"
#include "models/langcell/pretrained/geneformer_dictionaries.h"
#include "tools/commands/command.h"
#include "tools/commands/outputs.h"
#include "tools/commands/vocab.h"

namespace lc {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct ImportFlags {
  Common common;
  fs::path langcell, cell_model, genes, geneformer_tokens, geneformer_medians, text_vocab, out;
  bool overwrite = false;
};

GeneVocabulary genes_of(const ImportFlags& f, const fs::path& folder) {
  if (!f.geneformer_tokens.empty()) return read_geneformer_dictionaries(f.geneformer_tokens, f.geneformer_medians);
  if (!f.genes.empty()) return GeneVocabulary::read(f.genes);
  if (is_file(folder / "genes.tsv")) return GeneVocabulary::read(folder / "genes.tsv");
  throw UsageError("import: which genes do the tokens stand for? Give --genes G.tsv, or --geneformer-tokens and --geneformer-medians");
}

fs::path text_vocab_of(const ImportFlags& f) {
  if (!f.text_vocab.empty()) return f.text_vocab;
  for (const char* place : {"vocab.txt", "text_bert/vocab.txt"}) {
    if (is_file(f.langcell / place)) return f.langcell / place;
  }
  throw UsageError(fmt::format("import: {} has no vocab.txt; give the one of its text encoder with --text-vocab", f.langcell.string()));
}

Json json_of(const TensorAccount& a) {
  Json ignored = Json::array();
  for (const IgnoredTensor& t : a.ignored) ignored.push_back({{"tensor", t.name}, {"reason", t.reason}});
  return {{"part", a.part}, {"loaded", a.loaded}, {"ignored", ignored}, {"new", a.fresh}};
}

void run_import(const ImportFlags& f) {
  begin(f.common);
  if (f.langcell.empty() == f.cell_model.empty())
    throw UsageError("import: give either --langcell DIR (a LangCell bundle) or --cell-model DIR (a Geneformer)");
  const fs::path& folder = f.langcell.empty() ? f.cell_model : f.langcell;
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored)) throw ModelError(fmt::format("{}: no such folder; check the path", folder.string()));
  require_new(f.out, f.overwrite ? Overwrite::yes : Overwrite::no);
  require_ours(f.out, kManifestName, "--out");
  require_not_an_input(f.out, std::vector<fs::path>{folder, f.genes, f.text_vocab});
  AtomicFolder out(f.out, f.overwrite ? Existing::replace : Existing::refuse);
  const GeneVocabulary genes = genes_of(f, folder);
  const ImportedModel model =
      f.langcell.empty() ? import_geneformer(folder, genes, f.common.seed) : import_bundle({folder, genes, text_vocab_of(f)});
  write_model(out.partial_path(), *model.loaded.model, model.loaded.facts);
  write_manifest(out.partial_path());
  out.commit();
  Json parts = Json::array();
  for (const TensorAccount& a : model.accounts) {
    parts.push_back(json_of(a));
    say(f.common, text_of(a));
  }
  if (f.common.json)
    fmt::print("{}\n", Json{{"model", f.out.string()}, {"parts", parts}}.dump());
  else
    fmt::print("model: {} ({})\n", f.out.string(), model.loaded.config().preset);
}

}  // namespace

void register_import(Command program) {
  Command c = add_command(program, "import", "bring in the published LangCell bundle, or a Geneformer, as a model folder",
                          "langcell import --langcell bundle --genes genes.tsv --out model");
  const auto f = std::make_shared<ImportFlags>();
  c.add_option("--langcell", f->langcell, "a LangCell bundle: cell_bert/, text_bert/, cell_proj.bin, text_proj.bin, ctm_head.bin")
      .type_name("DIR");
  c.add_option("--cell-model", f->cell_model, "a Geneformer V1 folder: config.json and weights; <cls> becomes a new row").type_name("DIR");
  c.add_option("--genes", f->genes, "the genes of its tokens; by default DIR/genes.tsv").type_name("G.tsv");
  add_geneformer_options(c, f->geneformer_tokens, f->geneformer_medians);
  c.add_option("--text-vocab", f->text_vocab, "WordPiece vocabulary; by default DIR/vocab.txt, then DIR/text_bert/vocab.txt")
      .type_name("vocab.txt");
  c.add_option("--out", f->out, "the model folder to write").required().type_name("MODEL");
  c.add_flag("--overwrite", f->overwrite, "replace an existing model folder");
  add_common_options(c, f->common);
  c.callback([f] { run_import(*f); });
}

}  // namespace lc
