// Ranks as threads that watch each other over real sockets: who is lost, slow or failing is named, once, and all end alike.
#include "engine/watch/watch.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <map>

#include "engine/errors.h"
#include "tests/support/comm_threads.h"

namespace lc::test {
namespace {

using namespace std::chrono_literals;

struct Seen {  // by all ranks together
  std::mutex mutex;
  std::map<int, RankEnd> ends;
  std::vector<std::string> warnings;
  int told_here() const {
    int n = 0;
    for (const auto& [rank, end] : ends) n += end.told == RankEnd::Told::here;
    return n;
  }
};

using Body = std::function<void(Communicator&, Watch&)>;

// The body once per rank, watched. Where a process would end, the collectives of its thread throw PeerError instead.
void watched(int ranks, const WatchLimits& limits, Seen& seen, const Body& body) {
  on_ranks(ranks, [&](Communicator& c) {
    WatchSetup setup;
    setup.on_end = [&](const RankEnd& end) {
      const std::lock_guard lock(seen.mutex);
      seen.ends[end.rank] = end;
    };
    setup.warn = [&](const std::string& line) {
      const std::lock_guard lock(seen.mutex);
      seen.warnings.push_back(line);
    };
    setup.leave = [](int) {};
    Watch watch(c, setup);
    watch.allow(limits);
    try {
      body(c, watch);
    } catch (const PeerError&) {}
  });
}

void barrier(Communicator& c, Watch& watch) {
  const std::int64_t number = watch.begin("barrier", 0);
  c.barrier();
  watch.end(number);
}

TEST(Watch, lets_ranks_come_and_go_in_order) {
  Seen seen;
  watched(4, {5, 20}, seen, [](Communicator& c, Watch& w) {
    for (int n = 0; n < 100; ++n) barrier(c, w);
    std::this_thread::sleep_for(c.rank() * 100ms);
  });
  EXPECT_TRUE(seen.ends.empty());
  EXPECT_TRUE(seen.warnings.empty());
}

TEST(Watch, tells_all_why_one_failed_and_the_user_once) {
  for (const int culprit : {0, 1, 2}) {
    Seen seen;
    watched(3, {5, 0}, seen, [&](Communicator& c, Watch& w) {
      barrier(c, w);
      if (c.rank() == culprit) w.fail(5, "no space left");
      barrier(c, w);
    });
    ASSERT_EQ(seen.ends.size(), 3u);
    for (const auto& [rank, end] : seen.ends) {
      EXPECT_EQ(end.code, 5);
      EXPECT_EQ(end.reason, rank == culprit ? "no space left" : "rank " + std::to_string(culprit) + ": no space left");
      EXPECT_EQ(end.told == RankEnd::Told::here, rank == culprit);
    }
  }
}

TEST(Watch, lets_one_rank_speak_where_all_fail_together) {
  Seen seen;
  watched(4, {5, 0}, seen, [](Communicator& c, Watch& w) {
    barrier(c, w);
    w.fail(7, "not a number");
  });
  ASSERT_EQ(seen.ends.size(), 4u);
  EXPECT_EQ(seen.told_here(), 1);
  for (const auto& [rank, end] : seen.ends) EXPECT_EQ(end.code, 7);
}

TEST(Watch, names_a_rank_that_ends_without_a_word) {
  for (const int culprit : {0, 2}) {
    Seen seen;
    EXPECT_THROW(watched(3, {5, 0}, seen,
                         [&](Communicator& c, Watch& w) {
                           barrier(c, w);
                           if (c.rank() == culprit) throw std::runtime_error("as a process that is killed");
                           std::this_thread::sleep_for(300ms);
                           barrier(c, w);
                         }),
                 std::runtime_error);
    ASSERT_EQ(seen.ends.size(), 2u);
    EXPECT_EQ(seen.told_here(), 1);
    for (const auto& [rank, end] : seen.ends) {
      EXPECT_NE(rank, culprit);
      EXPECT_EQ(end.code, 6);
      EXPECT_NE(end.reason.find("rank " + std::to_string(culprit) + " is lost"), std::string::npos) << end.reason;
      EXPECT_NE(end.reason.find("collective 1 (barrier"), std::string::npos) << end.reason;
    }
  }
}

TEST(Watch, reports_a_slow_rank_that_lives_and_waits_for_it) {
  Seen seen;
  watched(3, {1, 30}, seen, [](Communicator& c, Watch& w) {
    barrier(c, w);
    if (c.rank() == 1) std::this_thread::sleep_for(2500ms);
    barrier(c, w);
  });
  EXPECT_TRUE(seen.ends.empty());
  ASSERT_FALSE(seen.warnings.empty());
  EXPECT_NE(seen.warnings[0].find("in collective 2 (barrier of 0 bytes): rank 1 lives and does not come"), std::string::npos)
      << seen.warnings[0];
}

TEST(Watch, gives_a_slow_rank_up_after_the_timeout) {
  Seen seen;
  watched(3, {1, 1.5}, seen, [](Communicator& c, Watch& w) {
    barrier(c, w);
    if (c.rank() == 2) std::this_thread::sleep_for(4s);
    barrier(c, w);
  });
  ASSERT_EQ(seen.ends.size(), 3u);
  EXPECT_EQ(seen.told_here(), 1);
  for (const auto& [rank, end] : seen.ends) {
    EXPECT_EQ(end.code, 6);
    EXPECT_NE(end.reason.find("rank 2 lives and does not come"), std::string::npos) << end.reason;
    EXPECT_NE(end.reason.find("ranks.timeout_s"), std::string::npos) << end.reason;
  }
}

TEST(Watch, keeps_the_last_collectives_and_the_open_one) {
  Seen seen;
  watched(2, {5, 0}, seen, [](Communicator& c, Watch& w) {
    for (int n = 0; n < 100; ++n) barrier(c, w);
    w.begin("broadcast", 12);
    if (c.rank() == 1) w.fail(3, "a file is gone");
    c.barrier();
  });
  const std::vector<Collective>& last = seen.ends.at(0).last;
  ASSERT_EQ(last.size(), 64u);
  EXPECT_EQ(last.front().number, 38);
  EXPECT_EQ(last.back().number, 101);
  EXPECT_EQ(last.back().name, "broadcast");
  EXPECT_EQ(last.back().bytes, 12);
  EXPECT_FALSE(last.back().ended);
  EXPECT_TRUE(last.front().ended && *last.front().ended >= last.front().begun);
}

TEST(Watch, of_one_rank_does_nothing) {
  Seen seen;
  watched(1, {0.1, 0.1}, seen, [](Communicator& c, Watch& w) { barrier(c, w); });
  EXPECT_TRUE(seen.ends.empty());
}

TEST(Line, brings_whole_messages_in_their_order_however_they_are_cut) {
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
  Line a(ends[0]), b(ends[1]);
  std::vector<Message> come;
  const int sent = 50;
  for (int n = 0; n < sent; ++n)
    a.send({.word = Word::failed, .rank = n, .code = 5, .text = std::string(20000, static_cast<char>('a' + n % 26))});
  EXPECT_TRUE(a.has_more());  // the socket holds no million of bytes
  while (come.size() < sent) {
    ASSERT_TRUE(b.receive(come));
    a.flush();
  }
  for (int n = 0; n < sent; ++n) {
    EXPECT_EQ(come[n].rank, n);
    EXPECT_EQ(come[n].text, std::string(20000, static_cast<char>('a' + n % 26)));
  }
  a.send({.word = Word::goodbye});
  a.close();
  come.clear();
  EXPECT_FALSE(b.receive(come));  // gone, and its last word is here
  ASSERT_EQ(come.size(), 1u);
  EXPECT_EQ(come[0].word, Word::goodbye);
}

}  // namespace
}  // namespace lc::test
