// A communicator that knows how long its collectives took, for the log: it passes every call on.
#pragma once
#include <memory>

#include "engine/comm.h"

namespace lc {

class TimedCommunicator final : public Communicator {
 public:
  explicit TimedCommunicator(Communicator& ranks) : ranks_(ranks) {}
  struct Waited {              // seconds, waiting for slower ranks included
    double all = 0, sums = 0;  // in collectives; of that for the sums that run beside the work, in what they were not hidden by it
  };
  Waited take();  // since it was last asked
  int rank() const override { return ranks_.rank(); }
  int size() const override { return ranks_.size(); }
  void all_reduce_sum(std::span<float> values) override;
  void all_reduce_sum(std::span<double> values) override;
  std::vector<float> all_gather_rows(std::span<const float> rows, std::int64_t columns) override;
  std::vector<std::int64_t> all_gather_rows(std::span<const std::int64_t> values) override;
  void broadcast(std::span<std::byte> bytes, int from) override;
  void barrier() override;
  // On a GPU the time to ask, not that of the sum.
  void all_reduce_sum_on(const Queue& queue, std::span<float> values) override;
  void all_gather_on(const Queue& queue, std::span<float> all, std::span<const std::int64_t> counts) override;
  void begin_sum_on(const Queue& queue, std::span<float> values) override;
  void end_sums_on(const Queue& queue) override;
  double take_waited_s() override { return ranks_.take_waited_s(); }
  void abort(int exit_code) override { ranks_.abort(exit_code); }

 private:
  Communicator& ranks_;
  double seconds_ = 0, sums_ = 0;
};

}  // namespace lc
