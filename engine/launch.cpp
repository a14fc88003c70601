#include "engine/launch.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <thread>

#include "engine/errors.h"
#include "engine/memory.h"

namespace lc {

static int ranks_of_torchrun(const Environment& environment) {
  const char* size = environment("WORLD_SIZE");
  return size && environment("RANK") ? std::atoi(size) : 0;
}

Launcher launcher(const Environment& environment) {
  if (environment("TORCHELASTIC_RUN_ID") && ranks_of_torchrun(environment) > 1) return Launcher::torchrun;  // whatever started torchrun
  const auto number = [&](const char* name) {
    const char* value = environment(name);
    return value ? std::atoi(value) : 0;
  };
  // One task needs no MPI, and a build without it none.
  if (const int size = number("OMPI_COMM_WORLD_SIZE"); size > 0) return size > 1 ? Launcher::mpi : Launcher::none;
  if (environment("PMIX_RANK")) return number("SLURM_STEP_NUM_TASKS") == 1 ? Launcher::none : Launcher::mpi;  // srun --mpi=pmix
  if (number("SLURM_STEP_NUM_TASKS") > 1)
    throw UsageError("srun started several tasks that cannot find each other; use srun --mpi=pmix, or mpirun within the allocation");
  if (number("PMI_SIZE") > 1)
    throw UsageError("this was started by the launcher of another MPI (PMI_SIZE is set); use mpirun of Open MPI, or srun --mpi=pmix");
  if (ranks_of_torchrun(environment) > 1) return Launcher::torchrun;
  return Launcher::none;
}

namespace {

constexpr const char* kCpuRanks = "ranks on CPUs talk by MPI, which torchrun does not start; use mpirun -np N langcell pretrain …";

int number_of(const Environment& environment, const char* name) {
  const char* value = environment(name);
  const int number = value ? std::atoi(value) : -1;
  if (number < 0)
    throw UsageError(fmt::format("RANK and WORLD_SIZE are set as by torchrun, but {} is {}; start ranks by torchrun, or unset them ({})",
                                 name, value ? "no number" : "not", kCpuRanks));
  return number;
}

// This rank's number on its machine.
int local_rank(const Environment& environment) {
  for (const char* name : {"LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID"}) {
    if (const char* value = environment(name)) return std::atoi(value);
  }
  throw UsageError(
      "which GPU is this rank's? its launcher sets none of LOCAL_RANK, OMPI_COMM_WORLD_LOCAL_RANK, SLURM_LOCALID: set LOCAL_RANK");
}

}  // namespace

Rendezvous rendezvous(const Environment& environment) {
  Rendezvous place;
  place.rank = number_of(environment, "RANK"), place.size = number_of(environment, "WORLD_SIZE");
  place.port = number_of(environment, "MASTER_PORT");
  if (const char* address = environment("MASTER_ADDR")) place.address = address;
  if (place.address.empty() || place.rank >= place.size)
    throw UsageError(fmt::format("RANK {} and WORLD_SIZE {} are set as by torchrun, and MASTER_ADDR is '{}'; start ranks by torchrun",
                                 place.rank, place.size, place.address));
  for (const char* name : {"TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"}) {
    if (const char* value = environment(name)) place.run += std::string(value) + " ";
  }
  const char* taken = environment("TORCHELASTIC_USE_AGENT_STORE");
  if (taken && std::string(taken) == "True") ++place.port;  // torchrun itself listens at MASTER_PORT
  return place;
}

std::unique_ptr<Communicator> launched_ranks(const Environment& environment) {
  switch (launcher(environment)) {
    case Launcher::mpi:
      return comm_mpi();
    case Launcher::torchrun:
      return comm_sockets(rendezvous(environment));
    case Launcher::none:
      break;
  }
  return comm_alone();
}

Queue queue_of_rank(const std::string& device, const Environment& environment) {
  const Queue any = queue_named(device, "train.device");
  if (any.device == Device::cpu) {
    if (launcher(environment) == Launcher::torchrun) throw UsageError(kCpuRanks);
    return any;
  }
  if (device.find(':') != std::string::npos)
    throw UsageError(
        fmt::format("train.device: each rank takes the GPU of its number on its machine; set 'cuda' in place of '{}'", device));
  const int gpus = static_cast<int>(std::ssize(devices())) - 1, local = local_rank(environment);
  if (gpus > 1 && local >= gpus)
    throw UsageError(fmt::format(
        "rank {} of this machine has no GPU, there are {}; start one rank for each GPU, or set train.device = \"cpu\"", local, gpus));
  return {Device::cuda, gpus == 1 ? 0 : local};  // one: a launcher that shows each rank its own, or NCCL refuses
}

void require_one_kind_of_device(Communicator& ranks, const Queue& queue) {
  const auto own = static_cast<std::int64_t>(queue.device);
  const std::vector<std::int64_t> all = ranks.all_gather_rows(std::span(&own, 1));
  for (std::size_t r = 1; r < all.size(); ++r) {
    if (all[r] != all[0])
      throw UsageError(fmt::format("train.device: rank {} computes on a {} and rank 0 on a {}; set cpu or cuda for all of them", r,
                                   all[r] ? "GPU" : "CPU", all[0] ? "GPU" : "CPU"));
  }
}

int threads_of_a_rank(const Environment& environment, int available) {
  int local_ranks = 1;
  for (const char* name : {"OMPI_COMM_WORLD_LOCAL_SIZE", "SLURM_STEP_TASKS_PER_NODE", "LOCAL_WORLD_SIZE"}) {
    if (const char* value = environment(name)) {
      local_ranks = std::max(1, std::atoi(value));
      break;
    }
  }
  const auto cores = static_cast<int>(std::thread::hardware_concurrency());
  return std::clamp(cores / local_ranks, 1, std::max(1, available));
}

}  // namespace lc
