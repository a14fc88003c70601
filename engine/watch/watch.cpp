#include "engine/watch/watch.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <exception>

#include "engine/errors.h"
#include "engine/quiet_thread.h"

namespace lc {
namespace {

constexpr std::chrono::milliseconds kLongestBeat{1000}, kNamed{1000}, kAnswer{2000}, kLeave{1000}, kLastResort{4000};
const int kPeerCode = PeerError("").exit_code();

double seconds(std::chrono::steady_clock::duration d) { return std::chrono::duration<double>(d).count(); }

// Several beats fit into the silence that is allowed.
std::chrono::milliseconds beat_of(const WatchLimits& limits) {
  if (limits.silence_s <= 0) return kLongestBeat;
  return std::clamp(std::chrono::milliseconds(static_cast<std::int64_t>(limits.silence_s * 1000 / 6)), std::chrono::milliseconds(10),
                    kLongestBeat);
}

std::string words_of(const Standing& s) {
  if (s.begun == 0) return "before its first collective";
  return fmt::format("{} collective {} ({} of {} bytes)", s.waits() ? "in" : "after", s.begun, s.name.data(), s.bytes);
}

}  // namespace

Watch::Watch(Communicator& over, WatchSetup setup) : over_(over), setup_(std::move(setup)), rank_(over.rank()), size_(over.size()) {
  if (size_ == 1) return;
  Lines lines = connect_ranks(over_);
  if (!lines.unreached.empty()) {
    if (rank_ == 0 && setup_.warn)
      setup_.warn(fmt::format("ranks cannot connect to rank 0 by TCP: {}; the run goes on, but a rank that hangs will not be noticed",
                              lines.unreached));
    return;
  }
  lines_ = std::move(lines.to);
  peers_.resize(lines_.size());
  for (Peer& p : peers_) p.heard = p.moved = looked_;
  wake_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_ < 0) throw ResourceError(fmt::format("eventfd: {}; too many files are open", std::strerror(errno)));
  idle_ = false;
  thread_ = quiet_thread([this] { watch(); });
}

Watch::~Watch() {
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !finishing_ || finished_; });  // whoever finishes ends this process
    done_ = true, silent_ = std::uncaught_exceptions() > 0;
  }
  if (wake_ >= 0) ::eventfd_write(wake_, 1);
  if (thread_.joinable()) thread_.join();
  if (last_resort_.joinable()) last_resort_.join();
  if (wake_ >= 0) ::close(wake_);
}

void Watch::allow(const WatchLimits& limits) {
  const std::lock_guard lock(mutex_);
  limits_ = limits;
}

std::int64_t Watch::begin(const char* name, std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  const std::int64_t number = ++standing_.begun;
  standing_.bytes = static_cast<std::int64_t>(bytes), standing_.name = {};
  std::strncpy(standing_.name.data(), name, standing_.name.size() - 1);
  ring_[static_cast<std::size_t>(number) % kKept] = {number, name, standing_.bytes, std::chrono::system_clock::now(), {}};
  return number;
}

void Watch::end(std::int64_t number) {
  const std::lock_guard lock(mutex_);
  standing_.ended = std::max(standing_.ended, number);
  Collective& c = ring_[static_cast<std::size_t>(number) % kKept];
  if (c.number == number) c.ended = std::chrono::system_clock::now();
}

std::vector<Collective> Watch::last_collectives() const {
  std::vector<Collective> last;
  for (std::int64_t n = std::max<std::int64_t>(1, standing_.begun + 1 - static_cast<std::int64_t>(kKept)); n <= standing_.begun; ++n)
    last.push_back(ring_[static_cast<std::size_t>(n) % kKept]);
  return last;
}

// ---- The thread. It holds the mutex but while it waits, and ends with a verdict or when the watch does.

void Watch::watch() {
  std::unique_lock lock(mutex_);
  bool goodbye = false;
  while (!verdict_) {
    if (done_ && !goodbye && !failing_ && !silent_ && (rank_ != 0 || all_have_left())) {
      for (Line& line : lines_) line.send({.word = Word::goodbye, .rank = rank_});
      goodbye = true;
    }
    if (done_ && (failing_ || silent_ || all_have_left())) {
      if (silent_) tell_standing();  // where it stood is told, what became of it is for the others to find out
      break;
    }
    lock.unlock();
    wait_for_words();
    lock.lock();
    const auto now = Clock::now();
    // A process that stood still itself has heard nobody: that is not their silence.
    if (limits_.silence_s > 0 && seconds(now - looked_) > limits_.silence_s / 2) {
      for (Peer& p : peers_) p.heard = p.moved = now;
    }
    looked_ = now;
    for (std::size_t i = 0; i < lines_.size() && !verdict_; ++i) hear(i);
    if (!verdict_) tell_own_failure();
    if (!verdict_ && !goodbye) beat(now);
    if (!verdict_) judge_silence(now);
    if (!verdict_ && rank_ == 0) judge_slowness(now);
  }
  idle_ = true;
  changed_.notify_all();
  if (verdict_ && !failing_) {
    finish(lock, {rank_, verdict_->code, verdict_->reason, verdict_->teller == rank_ ? RankEnd::Told::here : RankEnd::Told::elsewhere, {}});
  }
}

// Rank 0 is the last to say goodbye, and the others wait for that: so what hangs at the very end is seen too.
bool Watch::all_have_left() const {
  for (std::size_t i = rank_ == 0 ? 1 : 0; i < lines_.size(); ++i)
    if (!peers_[i].left) return false;
  return true;
}

void Watch::wait_for_words() {
  std::vector<pollfd> sources{{wake_, POLLIN, 0}};
  for (const Line& line : lines_) {
    if (line.is_open()) sources.push_back({line.descriptor(), static_cast<short>(POLLIN | (line.has_more() ? POLLOUT : 0)), 0});
  }
  std::chrono::milliseconds pause{};
  {
    const std::lock_guard lock(mutex_);
    pause = beat_of(limits_);
  }
  ::poll(sources.data(), sources.size(), static_cast<int>(pause.count()));
  eventfd_t ignored = 0;
  ::eventfd_read(wake_, &ignored);
}

void Watch::hear(std::size_t i) {
  Line& line = lines_[i];
  if (!line.is_open()) return;
  line.flush();
  std::vector<Message> come;
  const bool lives = line.receive(come);
  for (const Message& message : come) {
    if (!verdict_) take(message, peers_[i]);
  }
  if (lives || verdict_) return;
  line.close();
  if (peers_[i].left) return;
  decide({teller(), kPeerCode,
          fmt::format("rank {} is lost: its process ended without a word {} (killed, out of memory, or its machine failed); resume the run "
                      "from its last checkpoint",
                      i, words_of(peers_[i].standing))});
}

void Watch::take(const Message& message, Peer& from) {
  from.heard = Clock::now();
  switch (message.word) {
    case Word::beat:
      if (from.standing != message.standing) from.standing = message.standing, from.moved = from.heard;
      return;
    case Word::goodbye:
      from.left = true;
      return;
    case Word::failed:
      return decide({message.rank, message.code, fmt::format("rank {}: {}", message.rank, message.text)});
    case Word::over:
      verdict_ = {message.rank, message.code, message.text};
      return changed_.notify_all();
    case Word::hello:
      return;
  }
}

void Watch::tell_own_failure() {
  if (!failure_) return;
  if (rank_ == 0) return decide({0, failure_->code, fmt::format("rank 0: {}", failure_->reason)});
  lines_[0].send({.word = Word::failed, .rank = rank_, .code = failure_->code, .text = failure_->reason});
  failure_.reset();
}

void Watch::beat(Clock::time_point now) {
  if (now - beaten_ < beat_of(limits_) * 9 / 10) return;
  beaten_ = now;
  tell_standing();
}

void Watch::tell_standing() {
  for (Line& line : lines_) line.send({.word = Word::beat, .rank = rank_, .standing = standing_});
}

void Watch::judge_silence(Clock::time_point now) {
  if (limits_.silence_s <= 0) return;
  for (std::size_t i = 0; i < lines_.size(); ++i) {
    const double silent = seconds(now - peers_[i].heard);
    if (!lines_[i].is_open() || peers_[i].left || silent <= limits_.silence_s) continue;
    return decide(
        {teller(), kPeerCode,
         fmt::format("rank {} hangs: no sign of life for {:.1f} s (its process is stopped, or its machine stands still) {}; resume "
                     "the run from its last checkpoint",
                     i, silent, words_of(peers_[i].standing))});
  }
}

// Where rank 0 is what is wrong, all others find out by themselves, and one of them says so.
int Watch::teller() const { return rank_ == 0 ? 0 : 1; }

// Some wait in the newest collective, others have not come to it: those are slow.
void Watch::judge_slowness(Clock::time_point now) {
  if (peers_[0].standing != standing_) peers_[0].standing = standing_, peers_[0].moved = now;
  const Peer* first = nullptr;  // of those who wait in the newest collective
  for (const Peer& p : peers_) {
    if (!p.left && p.standing.waits() &&
        (!first || p.standing.begun > first->standing.begun || (p.standing.begun == first->standing.begun && p.moved < first->moved)))
      first = &p;
  }
  const double waited = first ? seconds(now - first->moved) : 0, patience = limits_.silence_s > 0 ? limits_.silence_s : 30;
  if (waited < patience) slow_s_ = patience;
  if (waited < slow_s_) return;
  std::vector<std::size_t> behind;
  for (std::size_t i = 0; i < peers_.size(); ++i) {
    if (!peers_[i].left && peers_[i].standing.begun < first->standing.begun) behind.push_back(i);
  }
  const std::string who = behind.empty() ? "all ranks live, and none comes out of it: the network between them stands still, or is slow"
                                         : fmt::format("rank {} lives and does not come", fmt::join(behind, ", "));
  const std::string what = fmt::format("ranks have waited {:.0f} s {}: {}", waited, words_of(first->standing), who);
  if (limits_.timeout_s > 0 && waited > limits_.timeout_s)
    return decide(
        {0, kPeerCode, fmt::format("{}; resume the run from its last checkpoint, with a larger ranks.timeout_s if that was work", what)});
  if (setup_.warn) setup_.warn(what);
  slow_s_ = 2 * waited;
}

void Watch::decide(const Verdict& verdict) {
  verdict_ = verdict, judge_ = true;
  for (Line& line : lines_) line.send({.word = Word::over, .rank = verdict.teller, .code = verdict.code, .text = verdict.reason});
  changed_.notify_all();
}

// ---- The end

void Watch::fail(int code, const std::string& reason) {
  std::unique_lock lock(mutex_);
  const auto judged = [&] { return verdict_.has_value(); };
  if (!finishing_) {
    failing_ = true;
    if (code == kPeerCode) changed_.wait_for(lock, kNamed, judged);  // the watch may know which rank is behind it
    if (!verdict_ && !idle_) {
      failure_ = {rank_, code, reason};
      ::eventfd_write(wake_, 1);
      changed_.wait_for(lock, kAnswer, judged);
    }
    done_ = true;
    if (wake_ >= 0) ::eventfd_write(wake_, 1);
    changed_.wait(lock, [&] { return idle_; });
    const bool here = !verdict_ || verdict_->teller == rank_, named = code == kPeerCode && verdict_ && verdict_->teller != rank_;
    finish(lock, {rank_, code, named ? verdict_->reason : reason, here ? RankEnd::Told::here : RankEnd::Told::elsewhere, {}});
  }
  changed_.wait(lock, [&] { return finished_; });
}

void Watch::finish(std::unique_lock<std::mutex>& lock, RankEnd end) {
  finishing_ = true;
  end.last = last_collectives();
  const bool ends_all = judge_ || !verdict_;
  lock.unlock();
  leave_in_bounded_time(end.code);
  std::signal(SIGTERM, SIG_IGN);  // as a launcher sends it when a rank is gone: we are leaving
  if (setup_.on_end) setup_.on_end(end);
  if (rank_ == 0) wait_for_the_others();
  if (ends_all && !closing_) over_.abort(end.code);  // the others leave by themselves; this ends those that cannot
  lock.lock();
  finished_ = true;
  changed_.notify_all();
  lock.unlock();
  setup_.leave(end.code);
}

// Until they have written why they end.
void Watch::wait_for_the_others() {
  const auto until = Clock::now() + kLeave;
  while (Clock::now() < until) {
    std::vector<pollfd> open;
    for (Line& line : lines_) {
      std::vector<Message> ignored;
      line.flush();
      if (line.is_open() && !line.receive(ignored)) line.close();
      if (line.is_open()) open.push_back({line.descriptor(), POLLIN, 0});
    }
    if (open.empty()) return;
    ::poll(open.data(), open.size(), 50);
  }
}

// A file system or an MPI that never answers must not hold the process.
void Watch::leave_in_bounded_time(int code) {
  last_resort_ = quiet_thread([this, code] {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, kLastResort, [&] { return finished_; })) setup_.leave(code);
  });
}

}  // namespace lc
