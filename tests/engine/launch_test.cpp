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
}

const std::map<std::string, std::string> kTorchrun{{"RANK", "1"},
                                                   {"WORLD_SIZE", "2"},
                                                   {"LOCAL_RANK", "1"},
                                                   {"MASTER_ADDR", "node3"},
                                                   {"MASTER_PORT", "29500"},
                                                   {"TORCHELASTIC_RUN_ID", "job"}};
std::map<std::string, std::string> changed(std::map<std::string, std::string> all, const std::string& name, const std::string& value) {
  if (value.empty())
    all.erase(name);
  else
    all[name] = value;
  return all;
}

TEST(Launch, torchrun_says_where_its_ranks_meet) {
  EXPECT_EQ(launcher(with(kTorchrun)), Launcher::torchrun);
  EXPECT_EQ(launcher(with(changed(kTorchrun, "TORCHELASTIC_RUN_ID", ""))), Launcher::torchrun);
  EXPECT_EQ(launcher(with(changed(kTorchrun, "SLURM_STEP_NUM_TASKS", "4"))), Launcher::torchrun);  // srun started torchrun
  const Rendezvous place = rendezvous(with(kTorchrun));
  EXPECT_EQ(place.address, "node3");
  EXPECT_EQ(place.port, 29500);
  EXPECT_EQ(place.rank, 1);
  EXPECT_EQ(place.size, 2);
  EXPECT_EQ(rendezvous(with(changed(kTorchrun, "TORCHELASTIC_USE_AGENT_STORE", "True"))).port, 29501);  // torchrun itself is at 29500
  EXPECT_NE(rendezvous(with(changed(kTorchrun, "TORCHELASTIC_RESTART_COUNT", "1"))).run, place.run);
}

TEST(Launch, a_place_to_meet_that_is_not_said_is_named) {
  for (const char* name : {"MASTER_ADDR", "MASTER_PORT"}) {
    try {
      rendezvous(with(changed(kTorchrun, name, "")));
      FAIL() << name;
    } catch (const UsageError& e) {
      EXPECT_NE(std::string(e.what()).find(name), std::string::npos) << e.what();
    }
  }
  EXPECT_THROW(rendezvous(with(changed(kTorchrun, "RANK", "2"))), UsageError);
}

TEST(Launch, ranks_on_cpus_are_not_torchruns) {
  EXPECT_EQ(queue_of_rank("cpu", with({{"OMPI_COMM_WORLD_SIZE", "2"}})), Queue{});
  try {
    queue_of_rank("cpu", with(kTorchrun));
    FAIL() << "no error";
  } catch (const UsageError& e) {
    EXPECT_NE(std::string(e.what()).find("mpirun"), std::string::npos) << e.what();
  }
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
