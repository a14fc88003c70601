// Ranks as threads, each with a GPU of the shim, that talk by NCCL's twin.
#pragma once
#include <functional>
#include <memory>

#include "engine/comm.h"
#include "tests/shim/shim.h"
#include "tests/support/comm_threads.h"

namespace lc::test {

// As on_ranks(); a collective on a GPU may take `patience_s`.
inline void on_gpus(int ranks, const std::function<void(Communicator&, const Queue&)>& body, double patience_s = 600) {
  struct Gpus {
    explicit Gpus(int count) { shim::device_count = count; }
    ~Gpus() { shim::device_count = 1; }
    Gpus(const Gpus&) = delete;
    Gpus& operator=(const Gpus&) = delete;
  } const gpus(ranks);
  on_ranks(ranks, [&](Communicator& host) {
    const Queue queue{Device::cuda, host.rank()};
    const std::unique_ptr<Communicator> c = comm_nccl(host, {queue, patience_s});
    body(*c, queue);
  });
}

}  // namespace lc::test
