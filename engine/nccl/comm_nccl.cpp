// Ranks on GPUs. NCCL is called so that no call blocks: what it cannot do at once is asked after until it is done or has failed. A thread
// looks for errors of the collectives that run on the GPU, because the thread that asked for them may be waiting for the GPU: it ends
// them, which lets that one go on, and the next call throws.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "engine/comm.h"
#include "engine/errors.h"
#include "engine/nccl/library.h"
#include "engine/quiet_thread.h"

namespace lc {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kLook{100}, kAgain{1};
constexpr std::chrono::seconds kGoodbye{30};

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

bool is_well(ncclResult_t result) { return result == ncclSuccess || result == ncclInProgress; }

void check(cudaError_t error) {
  if (error != cudaSuccess) throw ResourceError(fmt::format("ranks on GPUs: CUDA: {}", cudaGetErrorString(error)));
}

// ncclCommAbort has been seen to hang: it gets its time and no more. False when it took longer.
bool abort_in_time(const NcclLibrary& nccl, ncclComm_t comm) {
  auto done = std::make_shared<std::promise<void>>();
  std::future<void> ended = done->get_future();
  std::thread([&nccl, comm, done] {
    nccl.abort(comm);
    done->set_value();
  }).detach();
  return ended.wait_for(kGoodbye) == std::future_status::ready;
}

class Nccl final : public Communicator {
 public:
  Nccl(Communicator& host, const NcclSetup& setup);
  ~Nccl() override;
  Nccl(const Nccl&) = delete;
  Nccl& operator=(const Nccl&) = delete;

  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }
  void all_reduce_sum(std::span<float> values) override { whole().all_reduce_sum(values); }
  void all_reduce_sum(std::span<double> values) override { whole().all_reduce_sum(values); }
  std::vector<float> all_gather_rows(std::span<const float> rows, std::int64_t columns) override {
    return whole().all_gather_rows(rows, columns);
  }
  std::vector<std::int64_t> all_gather_rows(std::span<const std::int64_t> values) override { return whole().all_gather_rows(values); }
  void broadcast(std::span<std::byte> bytes, int from) override { whole().broadcast(bytes, from); }
  void barrier() override { whole().barrier(); }
  void all_reduce_sum_on(const Queue& queue, std::span<float> values) override;
  void all_gather_on(const Queue& queue, std::span<float> all, std::span<const std::int64_t> counts) override;
  void begin_sum_on(const Queue& queue, std::span<float> values) override;
  void end_sums_on(const Queue& queue) override;
  double take_waited_s() override;
  void abort(int exit_code) override { host_.abort(exit_code); }

 private:
  struct Asked {  // a collective in a stream
    cudaEvent_t done;
    Clock::time_point since;
  };
  void connect();
  struct Wait {  // of the queue's stream for that of the sums
    cudaEvent_t begin, end;
  };
  template <class Call>
  void ask(const char* what, const Queue& queue, cudaStream_t in, Call&& call);
  void let_wait(cudaStream_t stream, cudaStream_t for_other);
  void finish_call(const char* what, ncclResult_t result);
  ncclResult_t state() const;
  Communicator& whole();
  void require_whole();
  void give_up(const std::string& reason);
  void look();
  void watch();
  cudaStream_t stream() const { return static_cast<cudaStream_t>(setup_.queue.stream); }
  cudaEvent_t new_event(unsigned flags) const;

  const NcclLibrary& nccl_ = nccl_library();
  Communicator& host_;
  const NcclSetup setup_;
  std::mutex mutex_;  // of all below: a communicator of NCCL is one thread's at a time
  std::condition_variable closing_;
  ncclComm_t comm_ = nullptr;
  std::string broken_;  // why nothing more is to be had from the GPUs
  std::deque<Asked> asked_;
  std::vector<cudaEvent_t> events_;  // free ones
  bool closed_ = false;
  cudaStream_t sums_ =
      nullptr;  // beside the queue's: one of the two always waits for the other before a collective, so theirs have one order
  cudaEvent_t reached_ = nullptr;  // by one stream, for the other to wait
  std::vector<Wait> waits_;        // not yet asked after
  std::thread watch_;
};

Nccl::Nccl(Communicator& host, const NcclSetup& setup) : host_(host), setup_(setup) {
  if (!nccl_.why_not.empty()) throw ResourceError("ranks on GPUs: " + nccl_.why_not);
  check(cudaSetDevice(setup_.queue.index));
  connect();  // throws where ranks do not find each other: what follows has an owner from then on
  check(cudaStreamCreateWithFlags(&sums_, cudaStreamNonBlocking));
  reached_ = new_event(cudaEventDisableTiming);
  watch_ = quiet_thread([this] { watch(); });
}

// Rank 0 makes the name under which the ranks find each other, and says it over the host's path.
void Nccl::connect() {
  ncclUniqueId id{};
  ncclResult_t named = ncclSuccess;
  if (rank() == 0) named = nccl_.unique_id(&id);
  host_.broadcast(std::as_writable_bytes(std::span(&id, 1)), 0);
  finish_call("start", named);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  finish_call("start", nccl_.init(&comm_, size(), id, rank(), &config));
}

Nccl::~Nccl() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    closing_.notify_all();
  }
  watch_.join();
  if (comm_ && std::uncaught_exceptions() == 0 && is_well(nccl_.finalize(comm_))) {  // it waits for the others
    const auto start = Clock::now();
    while (state() == ncclInProgress && Clock::now() - start < kGoodbye) std::this_thread::sleep_for(kAgain);
    if (state() == ncclSuccess) nccl_.destroy(std::exchange(comm_, nullptr));
  }
  if (comm_) abort_in_time(nccl_, comm_);
  for (const Asked& a : asked_) cudaEventDestroy(a.done);
  for (const cudaEvent_t e : events_) cudaEventDestroy(e);
  for (const Wait& w : waits_) cudaEventDestroy(w.begin), cudaEventDestroy(w.end);
  cudaEventDestroy(reached_);
  cudaStreamDestroy(sums_);
}

cudaEvent_t Nccl::new_event(unsigned flags) const {
  cudaEvent_t event{};
  check(cudaEventCreateWithFlags(&event, flags));
  return event;
}

// What `stream` is asked for from now on begins when `for_other` has done what it was asked for until now.
void Nccl::let_wait(cudaStream_t stream, cudaStream_t for_other) {
  check(cudaEventRecord(reached_, for_other));
  check(cudaStreamWaitEvent(stream, reached_, 0));
}

ncclResult_t Nccl::state() const {
  ncclResult_t now = ncclSuccess;
  const ncclResult_t asked = nccl_.async_error(comm_, &now);
  return asked == ncclSuccess ? now : asked;
}

// Waits until the call that gave `result` is done; throws when it failed.
void Nccl::finish_call(const char* what, ncclResult_t result) {
  const auto start = Clock::now();
  while (result == ncclInProgress && seconds_since(start) < setup_.patience_s) {
    std::this_thread::sleep_for(kAgain);
    result = state();
  }
  if (result == ncclSuccess) return;
  const char* const detail = nccl_.last_error(comm_);
  const std::string reason =
      result == ncclInProgress
          ? fmt::format("NCCL: {}: other ranks did not answer for {:.0f} s", what, setup_.patience_s)
          : fmt::format("NCCL: {}: {}{}{}", what, nccl_.error_string(result), detail && *detail ? ": " : "", detail ? detail : "");
  give_up(reason);
  if (result == ncclInvalidUsage && !watch_.joinable())
    throw UsageError(reason + "; start one rank for each GPU, or set train.device = \"cpu\"");
  require_whole();
}

void Nccl::give_up(const std::string& reason) {
  broken_ = reason;
  if (!comm_ || abort_in_time(nccl_, std::exchange(comm_, nullptr))) return;
  fmt::print(stderr, "langcell: rank {}: error: {}, and the GPU does not come back\n", rank(), reason);
  host_.abort(PeerError("").exit_code());
}

void Nccl::require_whole() {
  if (!broken_.empty()) throw PeerError(broken_ + "; resume the run from its last checkpoint");
}

// The way of the host, when nothing is wrong with that of the GPUs: numbers read from a GPU are believed only after a call that went well.
Communicator& Nccl::whole() {
  const std::lock_guard lock(mutex_);
  look();
  require_whole();
  return host_;
}

template <class Call>
void Nccl::ask(const char* what, const Queue& queue, cudaStream_t in, Call&& call) {
  if (!(queue == setup_.queue)) throw ShapeError("ranks on GPUs: wanted numbers on the queue of this rank");
  const std::lock_guard lock(mutex_);
  require_whole();
  finish_call(what, call());
  cudaEvent_t event{};
  if (events_.empty())
    event = new_event(cudaEventDisableTiming);
  else
    event = events_.back(), events_.pop_back();
  check(cudaEventRecord(event, in));
  asked_.push_back({event, Clock::now()});
}

void Nccl::all_reduce_sum_on(const Queue& queue, std::span<float> values) {
  if (queue.device == Device::cpu) return whole().all_reduce_sum(values);
  if (values.empty()) return;
  ask("sum over ranks", queue, stream(),
      [&] { return nccl_.all_reduce(values.data(), values.data(), values.size(), ncclFloat, ncclSum, comm_, stream()); });
}

void Nccl::begin_sum_on(const Queue& queue, std::span<float> values) {
  if (queue.device == Device::cpu) return whole().begin_sum_on(queue, values);
  if (values.empty()) return;
  ask("sum over ranks", queue, sums_, [&] {
    let_wait(sums_, stream());
    return nccl_.all_reduce(values.data(), values.data(), values.size(), ncclFloat, ncclSum, comm_, sums_);
  });
}

void Nccl::end_sums_on(const Queue& queue) {
  if (queue.device == Device::cpu) return whole().end_sums_on(queue);
  const Wait wait{new_event(cudaEventDefault), new_event(cudaEventDefault)};
  waits_.push_back(wait);
  check(cudaEventRecord(wait.begin, stream()));
  let_wait(stream(), sums_);
  check(cudaEventRecord(wait.end, stream()));
}

// Of those that are over: nobody waits for a GPU to tell.
double Nccl::take_waited_s() {
  double seconds = 0;
  std::erase_if(waits_, [&](const Wait& w) {
    float milliseconds = 0;
    if (cudaEventQuery(w.end) == cudaErrorNotReady) return false;
    if (cudaEventElapsedTime(&milliseconds, w.begin, w.end) == cudaSuccess) seconds += milliseconds / 1e3;
    cudaEventDestroy(w.begin), cudaEventDestroy(w.end);
    return true;
  });
  return seconds;
}

void Nccl::all_gather_on(const Queue& queue, std::span<float> all, std::span<const std::int64_t> counts) {
  if (queue.device == Device::cpu) return whole().all_gather_on(queue, all, counts);
  if (all.empty()) return;
  const std::span<float> own = part_of_rank(rank(), all, counts);
  const bool equal = std::adjacent_find(counts.begin(), counts.end(), std::not_equal_to<>()) == counts.end();
  ask("gather", queue, stream(), [&] {
    if (equal) return nccl_.all_gather(own.data(), all.data(), own.size(), ncclFloat, comm_, stream());
    ncclResult_t result = nccl_.group_start();
    for (int r = 0; r < size() && is_well(result); ++r) {
      const std::span<float> part = part_of_rank(r, all, counts);
      if (!part.empty()) result = nccl_.broadcast(part.data(), part.data(), part.size(), ncclFloat, r, comm_, stream());
    }
    const ncclResult_t ended = nccl_.group_end();
    return is_well(result) ? ended : result;
  });
}

// ---- The thread

void Nccl::look() {
  if (!comm_) return;
  if (const ncclResult_t now = state(); !is_well(now)) {
    const char* const detail = nccl_.last_error(comm_);
    return give_up(fmt::format("NCCL: {}{}{}", nccl_.error_string(now), detail && *detail ? ": " : "", detail ? detail : ""));
  }
  while (!asked_.empty() && cudaEventQuery(asked_.front().done) != cudaErrorNotReady) {
    events_.push_back(asked_.front().done);
    asked_.pop_front();
  }
  if (asked_.empty() || seconds_since(asked_.front().since) < setup_.patience_s) return;
  give_up(fmt::format("NCCL: a collective was asked for {:.0f} s ago and is not done: another rank does not answer", setup_.patience_s));
}

void Nccl::watch() {
  cudaSetDevice(setup_.queue.index);  // or this thread would open the first GPU
  std::unique_lock lock(mutex_);
  while (!closing_.wait_for(lock, kLook, [&] { return closed_; })) look();
}

}  // namespace

std::unique_ptr<Communicator> comm_nccl(Communicator& host, const NcclSetup& setup) { return std::make_unique<Nccl>(host, setup); }

}  // namespace lc
