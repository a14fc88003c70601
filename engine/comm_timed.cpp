#include "engine/comm_timed.h"

#include <chrono>
#include <utility>

namespace lc {
namespace {

class Adding {  // the time it lives, to a sum
 public:
  explicit Adding(double& seconds) : seconds_(seconds) {}
  ~Adding() { seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }
  Adding(const Adding&) = delete;
  Adding& operator=(const Adding&) = delete;

 private:
  double& seconds_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

TimedCommunicator::Waited TimedCommunicator::take() {
  const double sums = std::exchange(sums_, 0) + ranks_.take_waited_s();
  return {std::exchange(seconds_, 0) + sums, sums};
}

void TimedCommunicator::all_reduce_sum(std::span<float> values) {
  const Adding adding(seconds_);
  ranks_.all_reduce_sum(values);
}
void TimedCommunicator::all_reduce_sum(std::span<double> values) {
  const Adding adding(seconds_);
  ranks_.all_reduce_sum(values);
}
std::vector<float> TimedCommunicator::all_gather_rows(std::span<const float> rows, std::int64_t columns) {
  const Adding adding(seconds_);
  return ranks_.all_gather_rows(rows, columns);
}
std::vector<std::int64_t> TimedCommunicator::all_gather_rows(std::span<const std::int64_t> values) {
  const Adding adding(seconds_);
  return ranks_.all_gather_rows(values);
}
void TimedCommunicator::broadcast(std::span<std::byte> bytes, int from) {
  const Adding adding(seconds_);
  ranks_.broadcast(bytes, from);
}
void TimedCommunicator::barrier() {
  const Adding adding(seconds_);
  ranks_.barrier();
}
void TimedCommunicator::all_reduce_sum_on(const Queue& queue, std::span<float> values) {
  const Adding adding(seconds_);
  ranks_.all_reduce_sum_on(queue, values);
}
void TimedCommunicator::all_gather_on(const Queue& queue, std::span<float> all, std::span<const std::int64_t> counts) {
  const Adding adding(seconds_);
  ranks_.all_gather_on(queue, all, counts);
}
void TimedCommunicator::begin_sum_on(const Queue& queue, std::span<float> values) {
  const Adding adding(sums_);
  ranks_.begin_sum_on(queue, values);
}
void TimedCommunicator::end_sums_on(const Queue& queue) {
  const Adding adding(sums_);
  ranks_.end_sums_on(queue);
}

}  // namespace lc
