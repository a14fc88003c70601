// What each launcher leaves in the environment.
#include "engine/launch.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <thread>

#include "engine/errors.h"

namespace lc {
namespace {

Environment with(const std::map<std::string, std::string>& variables) {
  return [variables](const char* name) {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  };
}

TEST(Launch, mpirun_and_srun_with_pmix_are_ranks_of_mpi_and_nothing_is_none) {
  EXPECT_EQ(launcher(with({{"OMPI_COMM_WORLD_SIZE", "2"}})), Launcher::mpi);
  EXPECT_EQ(launcher(with({{"PMIX_RANK", "0"}, {"SLURM_STEP_NUM_TASKS", "8"}})), Launcher::mpi);
  EXPECT_EQ(launcher(with({})), Launcher::none);
}

TEST(Launch, one_task_runs_alone_whoever_started_it_and_needs_no_mpi) {
  EXPECT_EQ(launcher(with({{"OMPI_COMM_WORLD_SIZE", "1"}, {"PMIX_RANK", "0"}})), Launcher::none);
  EXPECT_EQ(launcher(with({{"OMPI_COMM_WORLD_SIZE", "1"}, {"SLURM_STEP_NUM_TASKS", "2"}})), Launcher::none);  // its daemons were two
  EXPECT_EQ(launcher(with({{"PMIX_RANK", "0"}, {"SLURM_STEP_NUM_TASKS", "1"}})), Launcher::none);
  EXPECT_EQ(launcher(with({{"SLURM_STEP_NUM_TASKS", "1"}})), Launcher::none);
  EXPECT_EQ(launcher(with({{"RANK", "0"}, {"WORLD_SIZE", "1"}})), Launcher::none);
}

TEST(Launch, ranks_that_cannot_meet_are_refused) {
  EXPECT_THROW(launcher(with({{"SLURM_STEP_NUM_TASKS", "2"}})), UsageError);
  EXPECT_THROW(launcher(with({{"PMI_SIZE", "2"}})), UsageError);
  EXPECT_THROW(launcher(with({{"RANK", "1"}, {"WORLD_SIZE", "2"}})), UsageError);
}

TEST(Launch, a_rank_takes_its_share_of_the_machine_and_no_more_than_it_is_bound_to) {
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  EXPECT_EQ(threads_of_a_rank(with({{"OMPI_COMM_WORLD_LOCAL_SIZE", "1"}}), cores), cores);
  EXPECT_EQ(threads_of_a_rank(with({{"OMPI_COMM_WORLD_LOCAL_SIZE", "1"}}), 1), 1);
  EXPECT_EQ(threads_of_a_rank(with({{"OMPI_COMM_WORLD_LOCAL_SIZE", std::to_string(cores)}}), cores), 1);
  EXPECT_EQ(threads_of_a_rank(with({{"SLURM_STEP_TASKS_PER_NODE", std::to_string(16 * cores)}}), cores), 1);
}

}  // namespace
}  // namespace lc
