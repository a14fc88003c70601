// A build without MPI: one rank only.
#include "engine/comm.h"
#include "engine/errors.h"

namespace lc {

std::unique_ptr<Communicator> comm_mpi() {
  throw UsageError("this build has no MPI, so it runs on one rank only; install libopenmpi-dev and build again with tools/setup.sh");
}

}  // namespace lc
