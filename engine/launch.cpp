#include "engine/launch.h"

#include <algorithm>
#include <cstdlib>
#include <thread>

#include "engine/errors.h"

namespace lc {

Launcher launcher(const Environment& environment) {
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
  if (number("WORLD_SIZE") > 1 && environment("RANK"))
    throw UsageError("ranks on CPUs talk by MPI, which torchrun does not start; use mpirun -np N langcell pretrain …");
  return Launcher::none;
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
