// Ranks that talk by TCP, as threads of one process on this machine.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "engine/comm.h"
#include "engine/errors.h"

namespace lc::test {
namespace {

int bound_socket(int port, int* bound = nullptr) {  // listening
  const int s = ::socket(AF_INET6, SOCK_STREAM, 0);
  sockaddr_in6 a{};
  a.sin6_family = AF_INET6, a.sin6_port = htons(static_cast<std::uint16_t>(port));
  socklen_t size = sizeof a;
  if (::bind(s, reinterpret_cast<sockaddr*>(&a), size) != 0 || ::listen(s, 8) != 0) throw std::runtime_error("no socket");
  ::getsockname(s, reinterpret_cast<sockaddr*>(&a), &size);
  if (bound) *bound = ntohs(a.sin6_port);
  return s;
}
int free_port() {
  int port = 0;
  ::close(bound_socket(0, &port));
  return port;
}

Rendezvous place(int port, int rank, int size) {
  return {.address = "127.0.0.1", .port = port, .rank = rank, .size = size, .run = "test", .patience_s = 20};
}

// Each rank on a thread; what went wrong on each, "" when nothing did.
std::vector<std::string> on_sockets(int ranks, const std::function<void(Communicator&)>& body, int port = free_port()) {
  std::vector<std::string> errors(static_cast<std::size_t>(ranks));
  std::vector<std::thread> threads;
  for (int r = 0; r < ranks; ++r) {
    threads.emplace_back([&, r] {
      try {
        body(*comm_sockets(place(port, r, ranks)));
      } catch (const std::exception& e) {
        errors[static_cast<std::size_t>(r)] = e.what();
      }
    });
  }
  for (std::thread& t : threads) t.join();
  return errors;
}
void expect_all_well(const std::vector<std::string>& errors) {
  for (std::size_t r = 0; r < errors.size(); ++r) EXPECT_EQ(errors[r], "") << "rank " << r;
}

void use_all(Communicator& c) {
  const auto rank = static_cast<std::int64_t>(c.rank());
  std::vector<double> d{static_cast<double>(rank), 1};
  c.all_reduce_sum(std::span<double>(d));
  EXPECT_EQ(d, (std::vector<double>{c.size() * (c.size() - 1) / 2.0, static_cast<double>(c.size())}));
  std::vector<float> f{0.1f * static_cast<float>(rank + 1)};
  c.all_reduce_sum(std::span<float>(f));
  float wanted = 0.1f;
  for (int r = 1; r < c.size(); ++r) wanted += 0.1f * static_cast<float>(r + 1);
  EXPECT_EQ(f[0], wanted) << "not in the order of the ranks";
  EXPECT_EQ(c.all_gather_rows(std::span<const std::int64_t>(std::vector<std::int64_t>(static_cast<std::size_t>(rank), rank))).size(),
            static_cast<std::size_t>(c.size() * (c.size() - 1) / 2));
  EXPECT_EQ(c.all_gather_rows(std::span<const float>(std::vector<float>{1, 2}), 2).size(), 2 * static_cast<std::size_t>(c.size()));
  std::vector<std::byte> bytes(100000, std::byte(rank));
  c.broadcast(bytes, c.size() - 1);
  EXPECT_EQ(bytes.back(), std::byte(c.size() - 1));
  c.barrier();
}

TEST(Sockets, carry_every_collective) {
  for (const int ranks : {1, 2, 4}) expect_all_well(on_sockets(ranks, use_all));
}

TEST(Sockets, go_to_the_next_port_when_one_is_taken_and_strangers_are_sent_away) {
  int port = 0;
  const int taken = bound_socket(0, &port);
  std::thread stranger([taken] {  // what listens there says something of its own and hangs up
    for (int i = 0; i < 2; ++i) {
      const int s = ::accept(taken, nullptr, nullptr);
      [[maybe_unused]] const auto n = ::send(s, "220 mail at your service, what is your name?", 40, MSG_NOSIGNAL);
      ::close(s);
    }
  });
  expect_all_well(on_sockets(3, use_all, port));
  ::shutdown(taken, SHUT_RDWR);
  stranger.join();
  ::close(taken);
}

TEST(Sockets, two_runs_at_one_address_do_not_mix) {
  const int port = free_port();
  std::thread other([port] {
    std::vector<std::thread> ranks;
    for (int r = 0; r < 2; ++r) {
      ranks.emplace_back([&, r] {
        Rendezvous p = place(port, r, 2);
        p.run = "another";
        use_all(*comm_sockets(p));
      });
    }
    for (std::thread& t : ranks) t.join();
  });
  expect_all_well(on_sockets(2, use_all, port));
  other.join();
}

TEST(Sockets, a_rank_that_leaves_ends_the_others) {
  const std::vector<std::string> errors = on_sockets(3, [](Communicator& c) {
    c.barrier();
    if (c.rank() == 2) throw DataError("a file is gone");
    c.barrier();
  });
  EXPECT_NE(errors[0].find("rank 2 has left"), std::string::npos) << errors[0];
  EXPECT_NE(errors[1].find("rank 0 has left"), std::string::npos) << errors[1];
}

TEST(Sockets, ranks_that_come_to_different_collectives_are_told) {
  for (const std::string& e : on_sockets(3, [](Communicator& c) {
         double one = 1;
         if (c.rank() == 1)
           c.all_reduce_sum(std::span<double>(&one, 1));
         else
           c.barrier();
       }))
    EXPECT_NE(e.find("rank 1 came to collective 1 with another one than rank 0, which has a barrier there"), std::string::npos) << e;
}

TEST(Sockets, who_does_not_come_is_named) {
  Rendezvous p = place(free_port(), 0, 3);
  p.patience_s = 0.3;
  try {
    comm_sockets(p);
    FAIL() << "no error";
  } catch (const PeerError& e) {
    EXPECT_NE(std::string(e.what()).find("rank 1, 2 did not come to 127.0.0.1"), std::string::npos) << e.what();
  }
  p.rank = 1;
  try {
    comm_sockets(p);
    FAIL() << "no error";
  } catch (const PeerError& e) {
    EXPECT_NE(std::string(e.what()).find("rank 0 was not found at 127.0.0.1"), std::string::npos) << e.what();
  }
}

TEST(Sockets, an_abort_ends_the_process_with_its_code) {
  EXPECT_EXIT(comm_sockets(place(free_port(), 0, 1))->abort(7), testing::ExitedWithCode(7), "");
}

}  // namespace
}  // namespace lc::test
