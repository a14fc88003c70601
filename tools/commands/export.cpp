// langcell export: a model folder as the bundle that the published code and transformers load.
#include "models/langcell/pretrained/export.h"

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "tools/commands/command.h"
#include "tools/commands/outputs.h"

namespace lc {
namespace {

struct ExportFlags {
  Common common;
  std::filesystem::path model, out;
  bool overwrite = false;
};

void run_export(const ExportFlags& f) {
  begin(f.common);
  require_new(f.out, f.overwrite ? Overwrite::yes : Overwrite::no);
  require_ours(f.out, std::filesystem::path("cell_bert") / "pytorch_model.bin", "--out");
  require_not_an_input(f.out, std::vector<std::filesystem::path>{f.model});
  const LoadedModel model = load_model(f.model);
  export_bundle(f.out, model, f.overwrite ? Existing::replace : Existing::refuse);
  if (f.common.json)
    fmt::print("{}\n", nlohmann::ordered_json{{"bundle", f.out.string()}, {"text_tower", model.model->has_text()}}.dump());
  else
    fmt::print("bundle: {}{}\n", f.out.string(), model.model->has_text() ? "" : " (cell tower alone: this model has no text tower)");
}

}  // namespace

void register_export(Command program) {
  Command c = add_command(program, "export", "write a model folder in the layout of the published bundle (torch files)",
                          "langcell export --model model --out bundle");
  const auto f = std::make_shared<ExportFlags>();
  c.add_option("--model", f->model, "the model folder").required().type_name("M");
  c.add_option("--out", f->out, "the folder to write").required().type_name("DIR");
  c.add_flag("--overwrite", f->overwrite, "replace an existing bundle");
  add_common_options(c, f->common);
  c.callback([f] { run_export(*f); });
}

}  // namespace lc
