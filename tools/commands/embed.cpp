// langcell embed: obsm/X_langcell (z) into a copy of the input; with --cls also the raw hidden state of position 0.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "engine/build.h"
#include "engine/errors.h"
#include "tools/commands/cell_run.h"
#include "tools/commands/command.h"
#include "tools/commands/counts_flags.h"
#include "tools/commands/results.h"

namespace lc {
namespace {

struct Flags {
  Common common;
  CountsFlags counts;
  std::filesystem::path input, model, out;
  bool cls = false, overwrite = false;
};

void run_embed(const Flags& f) {
  begin(f.common);
  const ResultsSetup results{f.input, f.out, "langcell", f.overwrite ? Existing::replace : Existing::refuse};
  require_results_can_be_written(results, std::vector<std::string>{"obsm/X_langcell", "obsm/X_langcell_cls", "uns/langcell"});
  if (f.out.string().find(".tsv") != std::string::npos)
    throw UsageError("--out: embeddings are matrices; choose a name ending in .h5ad or .npz");
  const LoadedModel model = load_model(f.model, {.storage = precision_of(f.common, Work::inference), .queue = queue_of(f.common)});
  if (model.config().projection == 0 && !f.cls)
    throw ModelError(
        fmt::format("{}: this model has no projection, so no z; add --cls for the hidden state of position 0", f.model.string()));
  CellRunOptions options;
  options.low_coverage = f.counts.low_coverage();
  options.say = [&](const std::string& line) { say(f.common, line); };
  const CountMatrix counts = open_counts(f.input, counts_options(f.counts, model.facts.genes));
  const std::unique_ptr<Results> out = open_results(results, counts);  // what cannot be written is said now
  const CellRun run = run_cells(model, counts, options);
  if (run.scores.projection > 0) out->obsm("X_langcell", run.scores.z, static_cast<std::uint64_t>(run.scores.projection));
  if (f.cls) out->obsm("X_langcell_cls", run.scores.cls, static_cast<std::uint64_t>(model.config().cell.width));
  out->uns("langcell", {{"version", build::kVersion},
                        {"model_hash", model.hash},
                        {"counts", run.counts_source},
                        {"id_match", run.figures.id_match},
                        {"counts_known", run.figures.counts_known},
                        {"breadth", run.figures.breadth}});
  out->commit();
  if (f.common.json)
    fmt::print("{}\n",
               nlohmann::ordered_json{{"out", f.out.string()}, {"cells", run.scores.cells}, {"width", run.scores.projection}}.dump());
  else
    fmt::print("written: {} (obsm/X_langcell, {} x {})\n", f.out.string(), run.scores.cells, run.scores.projection);
  end(f.common);
}

}  // namespace

void register_embed(CLI::App& program) {
  CLI::App* c = add_command(program, "embed", "embed cells: unit vectors that neighbours, UMAP and clustering can use",
                            "langcell embed cells.h5ad --model model --out embedded.h5ad");
  const auto f = std::make_shared<Flags>();
  c->add_option("IN", f->input, "cells (.h5ad, 10x .h5 or MTX folder)")->required();
  c->add_option("--model", f->model, "a model folder")->required()->type_name("DIR");
  c->add_option("--out", f->out, "the input plus obsm/X_langcell (.h5ad), or the matrix alone (.npz)")->required()->type_name("OUT");
  c->add_flag("--cls", f->cls, "also obsm/X_langcell_cls, the hidden state of position 0");
  c->add_flag("--overwrite", f->overwrite, "replace an existing output and existing result keys");
  add_counts_flags(*c, f->counts);
  add_common_options(*c, f->common);
  c->callback([f] { run_embed(*f); });
}

}  // namespace lc
