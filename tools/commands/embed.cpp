// langcell embed: obsm/X_langcell (z) into a copy of the input; with --cls also the raw hidden state of position 0.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "engine/build.h"
#include "engine/errors.h"
#include "engine/memory.h"
#include "tools/commands/cell_run.h"
#include "tools/commands/command.h"
#include "tools/commands/counts_flags.h"
#include "tools/commands/results.h"

namespace lc {
namespace {

struct EmbedFlags {
  Common common;
  CountsFlags counts;
  std::filesystem::path input, model, out;
  bool cls = false, overwrite = false, dry_run = false;
};

void run_embed(const EmbedFlags& f) {
  begin(f.common);
  const ResultsSetup results{f.input, f.out, "langcell", f.overwrite ? Existing::replace : Existing::refuse};
  require_results_can_be_written(results, std::vector<std::string>{"obsm/X_langcell", "obsm/X_langcell_cls", "uns/langcell"});
  if (is_table(f.out)) throw UsageError("--out: embeddings are matrices; choose a name ending in .h5ad or .npz");
  const LoadedModel model = load_model(f.model, {.storage = precision_of(f.common, Work::inference), .queue = queue_of(f.common)});
  if (model.config().projection == 0 && !f.cls)
    throw ModelError(
        fmt::format("{}: this model has no projection, so no z; add --cls for the hidden state of position 0", f.model.string()));
  CellRunOptions options;
  options.wanted = f.cls ? Wanted::embeddings_and_cls : Wanted::embeddings;
  options.out = f.out, options.existing = results.existing, options.low_coverage = f.counts.low_coverage();
  options.only_finish = perhaps_finished(results);
  options.about = fmt::format("embed {} {} {} {} {}", f.counts.min_counts, f.cls, name_of(precision_of(f.common, Work::inference)),
                              name_of(queue_of(f.common)), instruction_set());
  options.say = [&](const std::string& line) { say(f.common, line); };
  const CountMatrix counts = open_counts(f.input, counts_options(f.counts, model.facts.genes));
  CellRun run(model, counts, options);
  if (f.dry_run) {
    run.estimate();
    return end(f.common);
  }
  run.run();
  const ResultsSetup where = where_to_write(results);
  const std::unique_ptr<Results> out = open_results(where, counts);
  if (run.projection() > 0) out->obsm("X_langcell", run.projection(), run.z());
  if (f.cls) out->obsm("X_langcell_cls", static_cast<std::uint64_t>(model.config().cell.width), run.cls());
  out->uns("langcell", {{"version", build::kVersion},
                        {"model_hash", model.hash},
                        {"counts", counts.source()},
                        {"id_match", run.figures().id_match},
                        {"counts_known", run.figures().counts_known},
                        {"breadth", run.figures().breadth}});
  out->commit();
  require_finished(where.out, results);
  run.finish();
  if (f.common.json)
    fmt::print("{}\n", nlohmann::ordered_json{{"out", f.out.string()}, {"cells", run.cells()}, {"width", run.projection()}}.dump());
  else
    fmt::print("written: {} (obsm/X_langcell, {} x {})\n", f.out.string(), run.cells(), run.projection());
  end(f.common);
}

}  // namespace

void register_embed(Command program) {
  Command c = add_command(program, "embed", "embed cells: unit vectors that neighbours, UMAP and clustering can use",
                          "langcell embed cells.h5ad --model model --out embedded.h5ad");
  const auto f = std::make_shared<EmbedFlags>();
  c.add_option("IN", f->input, "cells (.h5ad, 10x .h5 or MTX folder)").required();
  c.add_option("--model", f->model, "a model folder").required().type_name("DIR");
  c.add_option("--out", f->out, "the input plus obsm/X_langcell (.h5ad), or the matrix alone (.npz)").required().type_name("OUT");
  c.add_flag("--cls", f->cls, "also obsm/X_langcell_cls, the hidden state of position 0");
  c.add_flag("--overwrite", f->overwrite, "replace an existing output and existing result keys");
  c.add_flag("--dry-run", f->dry_run, "say what would be done and how long it would take; write nothing");
  add_counts_flags(c, f->counts);
  add_common_options(c, f->common);
  c.callback([f] { run_embed(*f); });
}

}  // namespace lc
