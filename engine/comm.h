// What ranks say to each other. Every collective is called by all ranks in one order; sums are taken in the order of the ranks.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/numeric.h"

namespace lc {

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual void all_reduce_sum(std::span<float> values) = 0;
  virtual void all_reduce_sum(std::span<double> values) = 0;
  // Rows of all ranks, rank 0 first; ranks may bring different numbers of rows, `columns` floats each.
  virtual std::vector<float> all_gather_rows(std::span<const float> rows, std::int64_t columns) = 0;
  virtual std::vector<std::int64_t> all_gather_rows(std::span<const std::int64_t> values) = 0;
  virtual void broadcast(std::span<std::byte> bytes, int from) = 0;
  virtual void barrier() = 0;
  // The same for numbers of the model, which lie where the queue computes. On a GPU (comm_nccl) they are asked for in the order of its
  // stream and nobody waits: what goes wrong there, a later call throws as PeerError. Other ranks do it in host memory.
  virtual void all_reduce_sum_on(const Queue& queue, std::span<float> values);
  // counts[r] floats of each rank r, rank 0 first, the same counts on all ranks; this rank's lie in their place, the others' are filled in.
  virtual void all_gather_on(const Queue& queue, std::span<float> all, std::span<const std::int64_t> counts);
  // Sums beside the work of the queue: of what lies there once all is done that the queue was asked for until now, put there before the
  // first that it is asked for after end_sums_on(). In between nobody touches the values, and no other collective is called. Ranks in host
  // memory have only their one thread for both: they sum at once.
  virtual void begin_sum_on(const Queue& queue, std::span<float> values) { all_reduce_sum_on(queue, values); }
  virtual void end_sums_on(const Queue&) {}
  virtual double take_waited_s() { return 0; }  // for which the queue of a GPU stood still for such sums, since last asked
  virtual void abort(int exit_code) = 0;        // ends all ranks at once; between processes it does not return
};

std::span<float> part_of_rank(int rank, std::span<float> all, std::span<const std::int64_t> counts);  // as all_gather_on lays them out

std::unique_ptr<Communicator> comm_alone();  // one rank: every collective is the identity
std::unique_ptr<Communicator> comm_mpi();    // processes started by mpirun or srun, data in host memory; UsageError in a build without MPI

// Where processes that have no MPI meet, as torchrun says it to each of them.
struct Rendezvous {
  std::string address;  // of rank 0's machine
  int port = 0;         // rank 0 listens at this one or one of the 15 above it, the first that is free
  int rank = 0, size = 1;
  std::string run;          // a name that all ranks of one run share, so that two runs do not mix
  double patience_s = 300;  // until all are there: else PeerError, naming who is not
};
// Processes that talk by TCP through rank 0, data in host memory: made for small values.
std::unique_ptr<Communicator> comm_sockets(const Rendezvous& place);

struct NcclSetup {
  Queue queue;               // of this rank: a GPU that no other rank has
  double patience_s = 1800;  // for a start, or a collective on the GPU, to be done: then PeerError
};
// Ranks on GPUs. The model's numbers go by NCCL, small ones of the host by `host`, over which the ranks find each other and which must
// outlive this. UsageError in a build without NCCL and where two ranks are on one GPU, ResourceError where its library is not.
std::unique_ptr<Communicator> comm_nccl(Communicator& host, const NcclSetup& setup);

}  // namespace lc
