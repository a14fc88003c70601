#include "tools/commands/command.h"

#include <fmt/format.h>
#include <omp.h>
#include <utf8proc.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <new>
#include <system_error>
#include <thread>

#include "engine/errors.h"
#include "engine/machine.h"
#include "engine/memory.h"
#include "engine/profile.h"

namespace lc {

void add_common_options(Command command, Common& c) {
  command.add_option("--device", c.device, "auto, cpu or cuda[:N]").capture_default_str();
  command.add_option("--precision", c.precision, "auto, fp32 or bf16").one_of({"auto", "fp32", "bf16"}).capture_default_str();
  command.add_option("--threads", c.threads, "threads; 0: all cores").range(0, 4096).capture_default_str();
  command.add_option("--seed", c.seed, "seed of everything random").range(std::uint64_t{0}, std::uint64_t{INT64_MAX}).capture_default_str();
  command.add_flag("--quiet", c.quiet, "no progress on standard error");
  command.add_flag("--profile", c.profile, "time, bytes and share of the machine's peak per operator, at the end");
  command.add_flag("--check-finite", c.check_finite, "stop at the first operator that gives a NaN or infinity, and name it");
  command.add_flag("--json", c.json, "the result as one JSON object on standard output");
}

void begin(const Common& c) {
  if (c.threads > 0) omp_set_num_threads(c.threads);
  if (!start_threads())
    throw ResourceError(fmt::format("{} threads cannot be started; use fewer --threads, free memory, or raise the limits (ulimit -u, -v)",
                                    omp_get_max_threads()));
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

// N copies of one command in each other's way are not what mpirun, srun or torchrun were asked for.
static void require_one_process(const std::string& name) {
  struct Started {
    const char *by, *size, *rank;
  };
  for (const auto& [by, size, rank] : {Started{"mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"},
                                       {"srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"},
                                       {"torchrun", "WORLD_SIZE", "RANK"}}) {
    const char *tasks = std::getenv(size), *task = std::getenv(rank);
    if (!tasks || !task || std::atoi(tasks) <= 1) continue;
    if (std::atoi(task) != 0) {  // the first one says it, before a launcher ends it because another has left
      std::this_thread::sleep_for(std::chrono::seconds(1));
      throw UsageError("");
    }
    throw UsageError(
        fmt::format("langcell {0} is one process, and {1} started {2}; start it without {1}, or, where each task has an input and an "
                    "output of its own, "
                    "by 'env -u {3} langcell {0} …'",
                    name, by, tasks, size));
  }
}

Command add_command(Command parent, const std::string& name, const std::string& what, const std::string& example) {
  Command command = parent.subcommand(name, what, example);
  if (name != "info" && name != "pretrain") command.when_parsed([name] { require_one_process(name); });
  return command;
}

void say(const Common& c, const std::string& line) {
  if (!c.quiet) fmt::print(stderr, "{}\n", printable(line));
}

void warn(const std::string& line) { fmt::print(stderr, "warning: {}\n", printable(line)); }

Failure failure_in_flight() {
  try {
    throw;
  } catch (const Error& e) {
    return {e.exit_code(), e.what()};
  } catch (const std::filesystem::filesystem_error& e) {
    return {5, fmt::format("{}: {}; check the path, its permissions and the space left", e.path1().string(), e.code().message())};
  } catch (const std::bad_alloc&) {
    return {5, "out of memory; use a smaller batch_size, fewer threads, or fewer ranks on this machine"};
  } catch (const std::system_error& e) {
    if (e.code() != std::errc::resource_unavailable_try_again && e.code() != std::errc::not_enough_memory)
      return {70, fmt::format("internal error: {}; please report it with the command that caused it", e.what())};
    return {5, fmt::format("no thread could be started ({}); use fewer --threads, free memory, or raise the limits (ulimit -u, -v)",
                           e.code().message())};
  } catch (const std::exception& e) {
    return {70, fmt::format("internal error: {}; please report it with the command that caused it", e.what())};
  }
}

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
