// How this process was started: alone, or as one of several ranks by mpirun, srun or torchrun. Read from the environment, before MPI is.
#pragma once
#include <cstdint>
#include <functional>

namespace lc {

enum class Launcher : std::uint8_t { none, mpi };

using Environment = std::function<const char*(const char*)>;  // as std::getenv

// UsageError, naming what to use instead, for launchers whose ranks could not find each other: they would all run the same work alone.
Launcher launcher(const Environment& environment);

// Threads for a rank that was asked for no number: its share of the machine, and no more than the launcher binds it to (`available`).
int threads_of_a_rank(const Environment& environment, int available);

}  // namespace lc
