// langcell info: what this build and machine are; info FILE: what a data file, corpus, model or run folder is and holds.
#include <fmt/format.h>
#include <hdf5.h>
#include <omp.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "engine/build.h"
#include "engine/errors.h"
#include "engine/machine.h"
#include "engine/memory.h"
#include "models/langcell/data/corpus.h"
#include "models/langcell/model_folder.h"
#include "tools/anndata/counts.h"
#include "tools/commands/command.h"
#include "tools/commands/run_facts.h"

namespace lc {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct InfoFlags {
  fs::path file;
  bool verify = false, json = false;
};

std::string cuda_state() {
  const std::string reason = why_not_cuda();
  return reason.empty() ? "compiled in" : "compiled in; " + reason;
}

Json machine() {
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  return {{"langcell", build::kVersion},
          {"build", fmt::format("{}, {}", build::kCompiler, build::kType)},
          {"devices", devices()},
          {"cuda", build::kCuda ? cuda_state() : "not compiled in"},
          {"instruction_set", instruction_set()},
          {"amx", cpu_has_amx()},
          {"threads", omp_get_max_threads()},
          {"hdf5", fmt::format("{}.{}.{}", major, minor, release)}};
}

Json describe_corpus(const fs::path& path, const InfoFlags& f) {
  const Corpus c = Corpus::open(path);
  if (f.verify) c.verify();
  Json inputs = Json::array();
  for (const CorpusInput& i : c.inputs()) inputs.push_back(fmt::format("{} ({} cells, {})", i.file, i.cells, i.counts));
  return {{"what", "corpus"},
          {"cells", c.cells()},
          {"tokens", c.tokens()},
          {"genes", c.vocabulary().genes().size()},
          {"labels", c.texts().labels.size()},
          {"texts", c.all_texts().size()},
          {"from", inputs},
          {"content", c.content_hash()},
          {"verified", f.verify}};
}

Json describe_counts(const fs::path& path) {
  const CountMatrix m = open_counts(path);
  return {{"what", m.from_anndata() ? "annotated data" : "10x counts"},
          {"cells", m.n_cells()},
          {"genes", m.n_genes()},
          {"counts", m.source()},
          {"notes", m.notes()},
          {"warnings", m.warnings()},
          {"obs", m.cells().columns()}};
}

Json describe_model(const fs::path& path, const InfoFlags& f) {
  const LoadedModel m = load_model(path, {.verify = f.verify ? Verify::hashes : Verify::sizes});
  std::int64_t parameters = 0;
  for (const NamedParameter& p : m.model->parameters().named()) parameters += p.shape.count();
  const LangCellConfig& c = m.config();
  const auto tower = [](const TowerConfig& t) {
    return fmt::format("{} layers, {} wide, {} heads, FFN {}, vocabulary {}", t.layers, t.width, t.heads, t.ffn, t.vocabulary);
  };
  return {{"what", "model folder"},
          {"preset", c.preset},
          {"parameters", parameters},
          {"cell_tower", tower(c.cell)},
          {"text_tower", m.model->has_text() ? tower(c.text) : "none"},
          {"projection", c.projection},
          {"max_cell_tokens", c.max_cell_tokens},
          {"max_text_tokens", c.max_text_tokens},
          {"mgm_head", m.model->has_mgm_head()},
          {"hash", m.hash},
          {"history", m.facts.history},
          {"verified", f.verify}};
}

Json describe(const InfoFlags& f) {
  const fs::path& p = f.file;
  if (!fs::exists(p)) throw DataError(fmt::format("{}: no such file or folder", p.string()));
  if (fs::is_directory(p)) {
    if (fs::exists(p / "config.resolved.toml") && !fs::exists(p / "config.json")) return run_facts(p);
    if (!fs::exists(p / "config.json") && !fs::exists(p / "MANIFEST.json")) return describe_counts(p);
    return describe_model(p, f);
  }
  const Hdf5 file = Hdf5::open(p);
  return file.has("tokens") && file.has("offsets") ? describe_corpus(p, f) : describe_counts(p);
}

std::string shown(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  return value.is_number_float() ? fmt::format("{:.4g}", value.get<double>()) : value.dump();
}

void run_info(const InfoFlags& f) {
  const Json facts = f.file.empty() ? machine() : describe(f);
  if (f.json) {
    fmt::print("{}\n", facts.dump());
    return;
  }
  for (const auto& [key, value] : facts.items()) {
    if (!value.is_array()) {
      fmt::print("{:<22} {}\n", key, shown(value));
      continue;
    }
    bool first = true;
    for (const auto& v : value) fmt::print("{:<22} {}\n", std::exchange(first, false) ? key : "", shown(v));
  }
}

}  // namespace

void register_info(Command program) {
  Command c = add_command(program, "info", "what this build and machine are, or what a file or folder is and holds",
                          "langcell info\n  langcell info model --verify");
  const auto f = std::make_shared<InfoFlags>();
  c.add_option("FILE", f->file, "an .h5ad, a corpus, a model folder or a run folder");
  c.add_flag("--verify", f->verify, "read everything once and compare hashes");
  c.add_flag("--json", f->json, "one JSON object");
  c.callback([f] { run_info(*f); });
}

}  // namespace lc
