// Ranks as threads of one process: the collectives of engine/comm.h over shared memory, sums in the order of the ranks.
#pragma once
#include <functional>

#include "engine/comm.h"

namespace lc::test {

// Runs body(communicator) once per rank, each on a thread of its own. When a rank throws, the others' collectives throw PeerError, and the
// first error is thrown again here.
void on_ranks(int ranks, const std::function<void(Communicator&)>& body);

}  // namespace lc::test
