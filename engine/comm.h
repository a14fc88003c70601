// What ranks say to each other. Every collective is called by all ranks in one order; sums are taken in the order of the ranks.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

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
  virtual void abort(int exit_code) = 0;  // ends all ranks at once; between processes it does not return
};

std::unique_ptr<Communicator> comm_alone();  // one rank: every collective is the identity
std::unique_ptr<Communicator> comm_mpi();    // processes started by mpirun or srun, data in host memory; UsageError in a build without MPI

}  // namespace lc
