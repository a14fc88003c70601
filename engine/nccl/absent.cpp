// A build without NCCL: one GPU, one rank. Programs that link it find the real one first.
#include "engine/comm.h"
#include "engine/errors.h"

namespace lc {

std::unique_ptr<Communicator> comm_nccl(Communicator&, const NcclSetup&) {
  throw UsageError(
      "this build has no NCCL, so it runs on one GPU only; install NCCL's nccl.h and nvcc and build again with tools/setup.sh, or run one "
      "rank, or set train.device = \"cpu\"");
}

}  // namespace lc
