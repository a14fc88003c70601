// How this process was started: alone, or as one of several ranks by mpirun, srun or torchrun. Read from the environment, before MPI is.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "engine/comm.h"

namespace lc {

enum class Launcher : std::uint8_t { none, mpi, torchrun };

using Environment = std::function<const char*(const char*)>;  // as std::getenv

// UsageError, naming what to use instead, for launchers whose ranks could not find each other: they would all run the same work alone.
Launcher launcher(const Environment& environment);

// The ranks that the launcher started, in host memory. Where torchrun did, they meet at MASTER_ADDR:MASTER_PORT.
std::unique_ptr<Communicator> launched_ranks(const Environment& environment);
Rendezvous rendezvous(const Environment& environment);  // torchrun's; UsageError naming what is missing

// Where this one of several ranks computes: on the CPU, or the GPU of its number on this machine (the only one, where the launcher lets it
// see no other). `device` as queue_named() takes it. UsageError for CPU ranks that torchrun started, a GPU named by number, fewer GPUs than
// ranks on this machine.
Queue queue_of_rank(const std::string& device, const Environment& environment);
// Collective. UsageError on all of them when some ranks compute on CPUs and others on GPUs.
void require_one_kind_of_device(Communicator& ranks, const Queue& queue);

// Threads for a rank that was asked for no number: its share of the machine, and no more than the launcher binds it to (`available`).
int threads_of_a_rank(const Environment& environment, int available);

}  // namespace lc
