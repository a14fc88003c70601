// Ranks as processes of MPI. Sums are our own: every rank adds a slice of the values in the order of the ranks, so the bits depend on their
// number alone and not on the algorithm the library chooses.
#include <fmt/format.h>
#include <mpi.h>

#include <algorithm>
#include <exception>
#include <numeric>
#include <vector>

#include "engine/comm.h"
#include "engine/errors.h"

namespace lc {
namespace {

constexpr std::size_t kChunk = std::size_t{1} << 22;  // values of one exchange: bounds the memory and stays an int

void check(int status, const char* what) {
  if (status == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(status, text, &length);
  throw PeerError(fmt::format("MPI: {}: {}; resume the run from its last checkpoint", what, std::string_view(text, length)));
}

template <class T>
MPI_Datatype type_of();
template <>
MPI_Datatype type_of<float>() {
  return MPI_FLOAT;
}
template <>
MPI_Datatype type_of<double>() {
  return MPI_DOUBLE;
}
template <>
MPI_Datatype type_of<std::int64_t>() {
  return MPI_INT64_T;
}

class Mpi final : public Communicator {
 public:
  Mpi() {
    int provided = 0;
    if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS || provided < MPI_THREAD_FUNNELED)
      throw PeerError("MPI: did not start; try mpirun -np 2 hostname");
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_), MPI_Comm_size(MPI_COMM_WORLD, &size_);
  }
  ~Mpi() override {
    if (std::uncaught_exceptions() == 0) MPI_Finalize();  // it waits for all ranks, who may be elsewhere when one of them fails
  }
  Mpi(const Mpi&) = delete;
  Mpi& operator=(const Mpi&) = delete;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void all_reduce_sum(std::span<float> values) override { reduce(values); }
  void all_reduce_sum(std::span<double> values) override { reduce(values); }
  std::vector<float> all_gather_rows(std::span<const float> rows, std::int64_t columns) override {
    if (columns <= 0 || rows.size() % static_cast<std::size_t>(columns) != 0) throw ShapeError("all_gather_rows: wanted whole rows");
    return gather(rows);
  }
  std::vector<std::int64_t> all_gather_rows(std::span<const std::int64_t> values) override { return gather(values); }
  void broadcast(std::span<std::byte> bytes, int from) override {
    for (std::size_t at = 0; at < bytes.size(); at += kChunk) {
      const std::size_t n = std::min(kChunk, bytes.size() - at);
      check(MPI_Bcast(bytes.data() + at, static_cast<int>(n), MPI_BYTE, from, MPI_COMM_WORLD), "broadcast");
    }
  }
  void barrier() override { check(MPI_Barrier(MPI_COMM_WORLD), "barrier"); }
  void abort(int exit_code) override { MPI_Abort(MPI_COMM_WORLD, exit_code); }

 private:
  template <class T>
  void reduce(std::span<T> values) {
    for (std::size_t at = 0; at < values.size(); at += kChunk) reduce_chunk(values.subspan(at, std::min(kChunk, values.size() - at)));
  }

  // Slice r of everybody to rank r, who adds; then the sums to all.
  template <class T>
  void reduce_chunk(std::span<T> values) {
    std::vector<int> counts(size_), starts(size_), own(size_), own_starts(size_);
    for (int r = 0; r < size_; ++r) {
      const auto begin = [&](int k) {
        return static_cast<int>(values.size() * static_cast<std::size_t>(k) / static_cast<std::size_t>(size_));
      };
      starts[r] = begin(r), counts[r] = begin(r + 1) - begin(r);
    }
    const int mine = counts[rank_];
    for (int r = 0; r < size_; ++r) own[r] = mine, own_starts[r] = r * mine;
    std::vector<T> slices(static_cast<std::size_t>(mine) * static_cast<std::size_t>(size_));
    check(MPI_Alltoallv(values.data(), counts.data(), starts.data(), type_of<T>(), slices.data(), own.data(), own_starts.data(),
                        type_of<T>(), MPI_COMM_WORLD),
          "sum over ranks");
    for (int r = 1; r < size_; ++r) {
      for (int i = 0; i < mine; ++i) slices[i] += slices[static_cast<std::size_t>(r) * mine + i];
    }
    check(MPI_Allgatherv(slices.data(), mine, type_of<T>(), values.data(), counts.data(), starts.data(), type_of<T>(), MPI_COMM_WORLD),
          "sum over ranks");
  }

  template <class T>
  std::vector<T> gather(std::span<const T> values) {
    const int mine = static_cast<int>(values.size());
    std::vector<int> counts(size_), starts(size_);
    check(MPI_Allgather(&mine, 1, MPI_INT, counts.data(), 1, MPI_INT, MPI_COMM_WORLD), "gather");
    std::exclusive_scan(counts.begin(), counts.end(), starts.begin(), 0);
    std::vector<T> all(static_cast<std::size_t>(starts.back()) + static_cast<std::size_t>(counts.back()));
    check(MPI_Allgatherv(values.data(), mine, type_of<T>(), all.data(), counts.data(), starts.data(), type_of<T>(), MPI_COMM_WORLD),
          "gather");
    return all;
  }

  int rank_ = 0, size_ = 1;
};

}  // namespace

std::unique_ptr<Communicator> comm_mpi() { return std::make_unique<Mpi>(); }

}  // namespace lc
