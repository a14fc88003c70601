// langcell plan: parameters, memory, operations, communication, time of a run, before anything runs.
#include "train/plan.h"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "engine/errors.h"
#include "engine/memory.h"
#include "tools/commands/assumed_corpus.h"
#include "tools/commands/command.h"
#include "train/rates.h"

namespace lc {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct PlanFlags {
  Common common;
  fs::path config;
  std::vector<std::string> set;
  std::string gpu;
  int ranks = 1;
  double link = 0, seconds = 6;
  std::int64_t cells = 0;
  AssumedCorpus assumed;
  bool memory_only = false;
};

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (fs::temp_directory_path() / "langcell-plan-XXXXXX").string();
    if (!::mkdtemp(name.data())) throw ResourceError(fmt::format("{}: cannot be created; set TMPDIR to a folder you may write to", name));
    path = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  fs::path path;
};

Options options_of(const PlanFlags& f, Device device) {
  Options o = f.config.empty() ? parse_options("", f.set) : read_options(f.config, f.set);
  if (f.common.precision != "auto") o.train.precision = f.common.precision;
  if (o.train.precision == "auto") o.train.precision = automatic_precision(Work::training, device) == DType::bf16 ? "bf16" : "fp32";
  if (o.train.batch_size % (o.train.accumulate * f.ranks) != 0) {
    throw UsageError(fmt::format("train.batch_size: wanted a multiple of ranks × train.accumulate = {}, got {}",
                                 o.train.accumulate * f.ranks, o.train.batch_size));
  }
  return o;
}

// Some cells are enough to walk steps: what is counted in epochs goes by the number that was given.
void assume_corpus(const PlanFlags& f, const fs::path& folder, Options& o) {
  constexpr std::int64_t kBatches = 2;
  AssumedCorpus a = f.assumed;
  a.cells = o.train.batch_size * kBatches;
  a.cell_tokens = std::min(a.cell_tokens, o.data.max_cell_tokens), a.text_tokens = std::min(a.text_tokens, o.data.max_text_tokens);
  write_assumed_corpus(folder / "corpus.h5", a);
  o.data.corpus = {(folder / "corpus.h5").string()};
}

void require_corpus(const Options& o) {
  for (const std::string& corpus : o.data.corpus) {
    if (!fs::exists(corpus))
      throw UsageError(
          fmt::format("{}: no such corpus; add --cells N (and --cell-tokens, --genes) to plan for one that is not there yet", corpus));
  }
}

std::string bytes_text(double bytes) {
  return bytes >= 1073741824 ? fmt::format("{:.2f} GiB", bytes / 1073741824) : fmt::format("{:.1f} MiB", bytes / 1048576);
}
std::string time_text(double s) {
  if (s >= 2 * 86400) return fmt::format("{:.1f} days", s / 86400);
  if (s >= 2 * 3600) return fmt::format("{:.1f} h", s / 3600);
  return s >= 120 ? fmt::format("{:.1f} min", s / 60) : fmt::format("{:.3g} s", s);
}

struct Planned {
  Options options;
  RunPlan run;
  std::optional<Machine> machine;
  Device device;
  int ranks;
};

Json json_of(const Planned& p) {
  Json stages = Json::array();
  double seconds = 0, worst = 0;
  for (const StagePlan& s : p.run.stages) {
    worst = std::max(worst, static_cast<double>(s.peak_bytes));
    Json stage{{"stage", s.stage},
               {"steps", s.steps},
               {"parameters_trained", s.trained},
               {"parameters_frozen", s.frozen},
               {"samples_per_step", p.options.train.batch_size},
               {"tokens_per_step", s.tokens * p.ranks},
               {"flops_per_step", s.flops() * p.ranks},
               {"peak_bytes", s.peak_bytes},
               {"activation_bytes", s.peak_bytes - p.run.parameter_bytes - (p.device == Device::cpu ? p.run.snapshot_bytes : 0)},
               {"held_bytes", s.held_bytes},
               {"sent_bytes_per_step", s.gradient_bytes + s.gather_bytes},
               {"gradient_bytes_per_step", s.gradient_bytes}};
    if (p.machine) {
      const StageTime t = time_of(s, *p.machine);
      stage["compute_s"] = t.compute_s, stage["communication_s"] = t.gradients_s + t.gather_s, stage["step_s"] = t.step_s();
      stage["samples_per_s"] = static_cast<double>(p.options.train.batch_size) / t.step_s();
      stage["flops_per_s_per_rank"] = s.flops() / t.step_s();
      for (const ProfileRow& row : t.operators) {
        stage["operators"].push_back({{"name", row.name},
                                      {"pass", row.direction == Direction::forward ? "forward" : "backward"},
                                      {"calls", row.calls},
                                      {"flops", row.flops},
                                      {"bytes", row.bytes},
                                      {"seconds", row.seconds}});
      }
      stage["seconds"] = t.step_s() * static_cast<double>(s.steps);
      seconds += t.step_s() * static_cast<double>(s.steps);
    }
    stages.push_back(stage);
  }
  Json json{{"preset", p.options.model.preset},
            {"device", p.device == Device::cpu ? "cpu" : "cuda"},
            {"precision", p.options.train.precision},
            {"ranks", p.ranks},
            {"batch_size", p.options.train.batch_size},
            {"accumulate", p.options.train.accumulate},
            {"recompute", p.options.train.recompute},
            {"parameters", p.run.parameters},
            {"parameter_bytes", p.run.parameter_bytes},
            {"snapshot_bytes", p.run.snapshot_bytes},
            {"peak_bytes", worst},
            {"stages", stages}};
  if (p.machine) {
    json["machine"] = p.machine->name, json["rates"] = p.machine->source;
    if (p.ranks > 1) json["link_bytes_per_s"] = p.machine->link_bytes_per_s, json["link"] = p.machine->link_source;
    if (p.machine->memory_bytes > 0) json["memory_bytes"] = p.machine->memory_bytes, json["fits"] = worst <= p.machine->memory_bytes;
    json["seconds"] = seconds, json["days"] = seconds / 86400;
  }
  return json;
}

void print_text(const Json& j) {
  fmt::print("preset {}, {} parameters; {}, {}; {} rank{}, batch {}{}{}\n", j["preset"].get<std::string>(),
             j["parameters"].get<std::int64_t>(), j["device"].get<std::string>(), j["precision"].get<std::string>(), j["ranks"].get<int>(),
             j["ranks"] == 1 ? "" : "s", j["batch_size"].get<std::int64_t>(),
             j["accumulate"] == 1 ? "" : fmt::format(", accumulate {}", j["accumulate"].get<int>()),
             j["recompute"].get<bool>() ? ", recompute" : "");
  const auto row = [&](const char* name, const auto& text) {
    fmt::print("{:<34}", name);
    for (const Json& s : j["stages"]) fmt::print("{:>18}", text(s));
    fmt::print("\n");
  };
  const auto at = [](const Json& s, const char* key) { return s[key].template get<double>(); };
  row("stage", [](const Json& s) { return s["stage"].dump(); });
  row("steps", [](const Json& s) { return s["steps"].dump(); });
  row("parameters trained", [](const Json& s) { return s["parameters_trained"].dump(); });
  row("tokens of a step", [&](const Json& s) { return fmt::format("{:.0f}", at(s, "tokens_per_step")); });
  row("operations of a step", [&](const Json& s) { return fmt::format("{:.4g} TFLOP", at(s, "flops_per_step") / 1e12); });
  row("weights, gradients, moments", [&](const Json&) { return bytes_text(j["parameter_bytes"].get<double>()); });
  row("copy for checkpoints, on the host", [&](const Json&) { return bytes_text(j["snapshot_bytes"].get<double>()); });
  row("activations and work", [&](const Json& s) { return bytes_text(at(s, "activation_bytes")); });
  row("peak memory of a rank", [&](const Json& s) { return bytes_text(at(s, "peak_bytes")); });
  if (j["device"] == "cpu") row("taken from the system", [&](const Json& s) { return bytes_text(at(s, "held_bytes")); });
  if (j["ranks"] > 1) row("sent by each rank in a step", [&](const Json& s) { return bytes_text(at(s, "sent_bytes_per_step")); });
  if (!j.contains("machine")) return;
  row("a step", [&](const Json& s) { return fmt::format("{:.4g} s", at(s, "step_s")); });
  if (j["ranks"] > 1) row("  of it communication", [&](const Json& s) { return fmt::format("{:.3g} s", at(s, "communication_s")); });
  row("cells a second", [&](const Json& s) { return fmt::format("{:.1f}", at(s, "samples_per_s")); });
  row("the stage", [&](const Json& s) { return time_text(at(s, "seconds")); });
  fmt::print("all: {} = {:.3g} days on {} × {}\n", time_text(j["seconds"].get<double>()), j["days"].get<double>(), j["ranks"].get<int>(),
             j["machine"].get<std::string>());
  fmt::print("rates: {}\n", j["rates"].get<std::string>());
  if (j.contains("link"))
    fmt::print("between ranks: {:.4g} GB/s, {}; none of it hidden\n", j["link_bytes_per_s"].get<double>() / 1e9,
               j["link"].get<std::string>());
  if (j.contains("fits") && !j["fits"].get<bool>())
    fmt::print("does not fit: {} of memory; use a smaller batch_size, more accumulate, more ranks, or recompute = true\n",
               bytes_text(j["memory_bytes"].get<double>()));
}

void run_plan(const PlanFlags& f) {
  begin(f.common);
  const Queue here = f.gpu.empty() ? queue_of(f.common) : Queue{Device::cuda};
  std::optional<Machine> machine;
  if (!f.gpu.empty()) machine = gpu(f.gpu, f.ranks);
  Options options = options_of(f, here.device);
  std::optional<TemporaryFolder> folder;
  if (f.cells > 0)
    assume_corpus(f, folder.emplace().path, options);
  else
    require_corpus(options);
  Dataset data({options.data.corpus.begin(), options.data.corpus.end()});
  Planned planned{options, plan_run(options, data, {here.device, f.ranks, static_cast<double>(f.cells)}), machine, here.device, f.ranks};
  if (f.gpu.empty() && !f.memory_only) planned.machine = measure_machine(options, data, here, f.seconds);
  if (planned.machine && f.link > 0) planned.machine->link_bytes_per_s = f.link * 1e9, planned.machine->link_source = "as given";
  const Json json = json_of(planned);
  if (f.common.json)
    fmt::print("{}\n", json.dump());
  else
    print_text(json);
}

}  // namespace

void register_plan(Command program) {
  Command c =
      add_command(program, "plan", "what a run will take: parameters, memory, operations, communication, days",
                  "langcell plan --config run.toml\n  langcell plan --set model.preset=langcell --cells 27000000 --gpus 8 --gpu h200");
  const auto f = std::make_shared<PlanFlags>();
  c.add_option("--config", f->config, "configuration (TOML), as of pretrain").type_name("F.toml");
  c.add_option("--set", f->set, "override a key").type_name("key=value").once_each();
  c.add_option("--gpu", f->gpu, "plan for a GPU that is not here: h100, h200 or a100; else a short run measures this machine");
  c.add_option("--ranks,--gpus", f->ranks, "processes, each with its share of a batch").range(1, 1 << 20).capture_default_str();
  c.add_option("--link", f->link, "what a rank sends to the others in a second").type_name("GB/s").positive();
  c.add_option("--cells", f->cells, "plan for a corpus of so many cells that is not there yet").range(1l, 1l << 48);
  c.add_option("--cell-tokens", f->assumed.cell_tokens, "of such a corpus: tokens of a cell").range(2, 65536).capture_default_str();
  c.add_option("--genes", f->assumed.genes, "of such a corpus: genes in the vocabulary").range(2, 1 << 24).capture_default_str();
  c.add_option("--texts", f->assumed.texts, "of such a corpus: distinct texts").range(0, 1 << 20).capture_default_str();
  c.add_option("--text-tokens", f->assumed.text_tokens, "of such a corpus: tokens of a text").range(3, 65536).capture_default_str();
  c.add_option("--seconds", f->seconds, "of the short run, for each stage").range(0.1, 3600.0).capture_default_str();
  c.add_flag("--memory-only", f->memory_only, "no short run, no times");
  add_common_options(c, f->common);
  c.callback([f] { run_plan(*f); });
}

}  // namespace lc
