// Watching over ranks. A thread of every rank tells rank 0 several times within `silence_s` that the process lives and which collective it
// is in; rank 0 answers, so that it is watched itself. A rank whose connection breaks is lost, one that says nothing for `silence_s` hangs,
// one that the others have waited for in a collective for longer than that is reported as slow, and given up after `timeout_s`. Rank 0
// judges (the others judge rank 0), all are told, and every process ends with that reason: a collective that lost a rank never returns.
#pragma once
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "engine/watch/line.h"

namespace lc {

struct Collective {
  std::int64_t number = 0;  // from 1, the same on all ranks
  std::string name;
  std::int64_t bytes = 0;  // that this rank gave, or took from a broadcast
  std::chrono::system_clock::time_point begun{};
  std::optional<std::chrono::system_clock::time_point> ended{};
};

struct RankEnd {
  int rank = 0, code = 0;  // of this process
  std::string reason;
  enum class Told : std::uint8_t { here, elsewhere } told = Told::here;  // one rank tells the user, the others only record
  std::vector<Collective> last;                                          // the last collectives of this rank, the oldest first
};

struct WatchLimits {
  double silence_s = 30, timeout_s = 1800;  // 0: never
};

struct WatchSetup {
  std::function<void(const RankEnd&)> on_end;          // before the process ends; on the watching thread, or on that of fail()
  std::function<void(const std::string&)> warn;        // of slow ranks, on rank 0
  std::function<void(int exit_code)> leave = ::_exit;  // ends this process, after all were told
};

class Watch {
 public:
  // Collective. The ranks that `over` connects; `over` must outlive the watch, and its abort() is called from the watching thread.
  Watch(Communicator& over, WatchSetup setup);
  ~Watch();  // says goodbye and waits for that of the others; not while an exception is on its way
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  void allow(const WatchLimits& limits);

  std::int64_t begin(const char* name, std::size_t bytes);  // of a collective: its number
  void end(std::int64_t number);                            // several may be open, as on a stream; they end in their order
  void close() { closing_ = true; }                         // from here on the communicator is not to be called

  // This rank cannot go on. Tells the others, who end with the same code; of ranks that fail together one tells the user. Returns only
  // where setup.leave does.
  void fail(int code, const std::string& reason);

 private:
  using Clock = std::chrono::steady_clock;
  struct Peer {  // as this rank knows it: rank 0 knows all, the others rank 0
    Standing standing{};
    Clock::time_point heard{}, moved{};  // the last word; the last change of its standing
    bool left = false;                   // in order
  };
  struct Verdict {  // the end of the run: what all end with, and which rank tells the user
    int teller = 0, code = 0;
    std::string reason;
  };
  void watch();
  bool all_have_left() const;
  void wait_for_words();
  void hear(std::size_t line);
  void take(const Message& message, Peer& from);
  void tell_own_failure();
  void beat(Clock::time_point now);
  void tell_standing();
  void judge_silence(Clock::time_point now);
  void judge_slowness(Clock::time_point now);
  int teller() const;
  void decide(const Verdict& verdict);
  void finish(std::unique_lock<std::mutex>& lock, RankEnd end);
  void wait_for_the_others();
  void leave_in_bounded_time(int code);
  std::vector<Collective> last_collectives() const;

  static constexpr std::size_t kKept = 64;  // collectives
  Communicator& over_;
  WatchSetup setup_;
  const int rank_, size_;
  std::vector<Line> lines_;  // with the thread, then with whoever finishes
  std::vector<Peer> peers_;  // one for each line; on rank 0 [0] is itself
  Clock::time_point looked_ = Clock::now(), beaten_{};
  double slow_s_ = 0;  // the next wait that is told
  int wake_ = -1;      // an eventfd: a word from the other threads of this process

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  WatchLimits limits_;
  Standing standing_{};
  std::vector<Collective> ring_ = std::vector<Collective>(kKept);
  std::optional<Verdict> verdict_, failure_;  // failure_: of this rank, to be told
  bool failing_ = false, done_ = false, finishing_ = false, finished_ = false;
  bool idle_ = true;                     // the thread has nothing more to do
  bool judge_ = false, silent_ = false;  // this rank decided that the run is over; it leaves without a goodbye
  std::atomic<bool> closing_ = false;
  std::thread thread_, last_resort_;
};

// A communicator whose collectives are watched.
class Watched final : public Communicator {
 public:
  Watched(std::unique_ptr<Communicator> inner, WatchSetup setup);
  ~Watched() override;
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;
  Watch& watch() { return *watch_; }

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  void all_reduce_sum(std::span<float> values) override;
  void all_reduce_sum(std::span<double> values) override;
  std::vector<float> all_gather_rows(std::span<const float> rows, std::int64_t columns) override;
  std::vector<std::int64_t> all_gather_rows(std::span<const std::int64_t> values) override;
  void broadcast(std::span<std::byte> bytes, int from) override;
  void barrier() override;
  void abort(int exit_code) override { inner_->abort(exit_code); }

 private:
  std::unique_ptr<Communicator> inner_;
  std::unique_ptr<Watch> watch_;
};

}  // namespace lc
