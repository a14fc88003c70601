#include "tests/support/comm_threads.h"

#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>

#include "engine/errors.h"

namespace lc::test {
namespace {

// One collective at a time: every rank leaves its contribution; the last to come combines them; all take the result before the next begins.
class Meeting {
 public:
  explicit Meeting(int ranks) : contributions_(static_cast<std::size_t>(ranks)) {}

  using Bytes = std::vector<std::byte>;
  using Combine = std::function<Bytes(const std::vector<Bytes>&)>;
  Bytes meet(int rank, Bytes own, const Combine& combine) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return leaving_ == 0 || broken(); });
    require_whole();
    contributions_[static_cast<std::size_t>(rank)] = std::move(own);
    if (++arrived_ == contributions_.size()) {
      result_ = combine(contributions_);
      leaving_ = arrived_, arrived_ = 0, ++round_;
      changed_.notify_all();
    } else {
      changed_.wait(lock, [&, mine = round_] { return round_ != mine || broken(); });
      require_whole();
    }
    const Bytes taken = result_;
    if (--leaving_ == 0) changed_.notify_all();
    return taken;
  }
  void leave(const std::string& reason) {
    const std::lock_guard lock(mutex_);
    if (reason_.empty()) reason_ = reason;
    changed_.notify_all();
  }
  int ranks() const { return static_cast<int>(contributions_.size()); }

 private:
  bool broken() const { return !reason_.empty(); }
  void require_whole() const {
    if (broken()) throw PeerError("another rank has left: " + reason_);
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Bytes> contributions_;
  Bytes result_;
  std::string reason_;
  std::size_t arrived_ = 0, leaving_ = 0, round_ = 0;
};

template <class T>
Meeting::Bytes bytes_of(std::span<const T> values) {
  Meeting::Bytes bytes(values.size_bytes());
  if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}
template <class T>
std::vector<T> values_of(const Meeting::Bytes& bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

class Threads final : public Communicator {
 public:
  Threads(Meeting& meeting, int rank) : meeting_(meeting), rank_(rank) {}
  int rank() const override { return rank_; }
  int size() const override { return meeting_.ranks(); }
  void all_reduce_sum(std::span<float> values) override { reduce(values); }
  void all_reduce_sum(std::span<double> values) override { reduce(values); }
  std::vector<float> all_gather_rows(std::span<const float> rows, std::int64_t columns) override {
    if (columns <= 0 || rows.size() % static_cast<std::size_t>(columns) != 0) throw ShapeError("all_gather_rows: wanted whole rows");
    return gather(rows);
  }
  std::vector<std::int64_t> all_gather_rows(std::span<const std::int64_t> values) override { return gather(values); }
  void broadcast(std::span<std::byte> bytes, int from) override {
    const auto all = meeting_.meet(rank_, bytes_of(std::span<const std::byte>(bytes)),
                                   [&](const std::vector<Meeting::Bytes>& given) { return given[static_cast<std::size_t>(from)]; });
    if (all.size() != bytes.size()) throw ShapeError("broadcast: wanted as many bytes on every rank");
    std::copy(all.begin(), all.end(), bytes.begin());
  }
  void barrier() override {
    meeting_.meet(rank_, {}, [](const std::vector<Meeting::Bytes>&) { return Meeting::Bytes(); });
  }
  void abort(int exit_code) override { meeting_.leave("a rank ended all with code " + std::to_string(exit_code)); }

 private:
  template <class T>
  void reduce(std::span<T> values) {
    const auto sum = [](const std::vector<Meeting::Bytes>& given) {
      std::vector<T> total = values_of<T>(given[0]);
      for (std::size_t r = 1; r < given.size(); ++r) {
        const std::vector<T> other = values_of<T>(given[r]);
        if (other.size() != total.size()) throw ShapeError("all_reduce_sum: wanted as many values on every rank");
        for (std::size_t i = 0; i < total.size(); ++i) total[i] += other[i];
      }
      return bytes_of(std::span<const T>(total));
    };
    const std::vector<T> total = values_of<T>(meeting_.meet(rank_, bytes_of(std::span<const T>(values)), sum));
    std::copy(total.begin(), total.end(), values.begin());
  }
  template <class T>
  std::vector<T> gather(std::span<const T> values) {
    return values_of<T>(meeting_.meet(rank_, bytes_of(values), [](const std::vector<Meeting::Bytes>& given) {
      Meeting::Bytes all;
      for (const auto& part : given) all.insert(all.end(), part.begin(), part.end());
      return all;
    }));
  }
  Meeting& meeting_;
  const int rank_;
};

}  // namespace

void on_ranks(int ranks, const std::function<void(Communicator&)>& body) {
  Meeting meeting(ranks);
  std::exception_ptr first;
  std::mutex mutex;
  std::vector<std::thread> threads;
  for (int r = 0; r < ranks; ++r) {
    threads.emplace_back([&, r] {
      try {
        Threads communicator(meeting, r);
        body(communicator);
      } catch (const std::exception& e) {
        {
          const std::lock_guard lock(mutex);
          if (!first) first = std::current_exception();
        }
        meeting.leave(e.what());
      }
    });
  }
  for (std::thread& t : threads) t.join();
  if (first) std::rethrow_exception(first);
}

}  // namespace lc::test
