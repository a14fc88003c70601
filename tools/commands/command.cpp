#include "tools/commands/command.h"

#include <fmt/format.h>
#include <omp.h>

#include <cstdio>

#include "engine/errors.h"
#include "engine/machine.h"
#include "engine/memory.h"
#include "engine/profile.h"

namespace lc {

void add_common_options(CLI::App& command, Common& c) {
  command.add_option("--device", c.device, "auto, cpu or cuda[:N]")->capture_default_str();
  command.add_option("--precision", c.precision, "auto, fp32 or bf16")
      ->check(CLI::IsMember({"auto", "fp32", "bf16"}))
      ->capture_default_str();
  command.add_option("--threads", c.threads, "threads; 0: all cores")->check(CLI::Range(0, 4096))->capture_default_str();
  command.add_option("--seed", c.seed, "seed of everything random")->capture_default_str();
  command.add_flag("--quiet", c.quiet, "no progress on standard error");
  command.add_flag("--profile", c.profile, "time, bytes and share of the machine's peak per operator, at the end");
  command.add_flag("--check-finite", c.check_finite, "stop at the first operator that gives a NaN or infinity, and name it");
  command.add_flag("--json", c.json, "the result as one JSON object on standard output");
}

void begin(const Common& c) {
  if (c.threads > 0) omp_set_num_threads(c.threads);
  inspection().profile = c.profile;
  inspection().check_finite = c.check_finite;
}

void end(const Common& c) {
  if (!c.profile) return;
  if (queue_of(c).device == Device::cuda) {
    fmt::print(stderr, "{}each operator waited for by itself; the peaks of a GPU: build/bench/kernels --device cuda\n",
               profile_table(0, 0));
    return;
  }
  const MachinePeak peak = measure_peak();
  fmt::print(stderr, "{}peak of this machine, measured now on {} threads: {:.0f} GFLOP/s (float FMA), {:.1f} GB/s (memcpy)\n",
             profile_table(peak.gflops, peak.gbytes), omp_get_max_threads(), peak.gflops, peak.gbytes);
}

Queue queue_of(const Common& c) { return queue_named(c.device, "--device"); }

DType precision_of(const Common& c, Work work) {
  if (c.precision == "fp32") return DType::f32;
  if (c.precision == "bf16") return DType::bf16;
  return automatic_precision(work, queue_of(c).device);
}

CLI::App* add_command(CLI::App& program, const std::string& name, const std::string& what, const std::string& example) {
  CLI::App* command = program.add_subcommand(name, what);
  command->footer("example:\n  " + example + "\n");
  return command;
}

void say(const Common& c, const std::string& line) {
  if (!c.quiet) fmt::print(stderr, "{}\n", line);
}

void warn(const std::string& line) { fmt::print(stderr, "warning: {}\n", line); }

}  // namespace lc
