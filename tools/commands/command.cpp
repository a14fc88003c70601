#include "tools/commands/command.h"

#include <fmt/format.h>
#include <omp.h>
#include <utf8proc.h>

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
  if (!c.quiet) fmt::print(stderr, "{}\n", printable(line));
}

void warn(const std::string& line) { fmt::print(stderr, "warning: {}\n", printable(line)); }

std::string printable(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    utf8proc_int32_t point = -1;
    const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
    const utf8proc_ssize_t n = utf8proc_iterate(bytes, static_cast<utf8proc_ssize_t>(text.size()), &point);
    const bool shown = n > 0 && point >= 0x20 && (point < 0x7f || point >= 0xa0);
    const size_t taken = n > 0 ? static_cast<size_t>(n) : 1;
    if (shown)
      out += text.substr(0, taken);
    else
      for (const char byte : text.substr(0, taken)) out += fmt::format("\\x{:02x}", static_cast<unsigned char>(byte));
    text.remove_prefix(taken);
  }
  return out;
}

}  // namespace lc
