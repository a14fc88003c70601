// Ranks as processes that no MPI started: each but rank 0 has one TCP connection, to rank 0, who combines what all send and sends the
// result.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>
#include <utility>

#include "engine/comm.h"
#include "engine/errors.h"
#include "kernels/numeric.h"

namespace lc {
namespace {

using Clock = std::chrono::steady_clock;
using Bytes = std::vector<std::byte>;
constexpr int kPorts = 16;
constexpr std::chrono::milliseconds kPeerAnswer{1000}, kAgain{50};
constexpr std::uint64_t kMagic = fnv1a("langcell ranks 1");

class Connection {
 public:
  explicit Connection(int descriptor = -1) : descriptor_(descriptor) {}
  ~Connection() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  Connection(Connection&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  Connection& operator=(Connection&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  bool is_open() const { return descriptor_ >= 0; }
  int descriptor() const { return descriptor_; }
  bool send(const void* from, std::size_t bytes) const {
    for (const char* p = static_cast<const char*>(from); bytes > 0;) {
      const ssize_t n = ::send(descriptor_, p, bytes, MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return false;
      p += n, bytes -= static_cast<std::size_t>(n);
    }
    return true;
  }
  bool receive(void* to, std::size_t bytes) const {
    for (char* p = static_cast<char*>(to); bytes > 0;) {
      const ssize_t n = ::recv(descriptor_, p, bytes, 0);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return false;
      p += n, bytes -= static_cast<std::size_t>(n);
    }
    return true;
  }
  void limit(std::chrono::milliseconds wait) const {  // of each wait for the other end; 0: none
    const timeval t{wait.count() / 1000, wait.count() % 1000 * 1000};
    ::setsockopt(descriptor_, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    ::setsockopt(descriptor_, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
  }
  // Small messages go at once; a machine that is gone is noticed after a minute.
  void prepare() const {
    const auto set = [&](int level, int name, int value) { ::setsockopt(descriptor_, level, name, &value, sizeof value); };
    set(IPPROTO_TCP, TCP_NODELAY, 1), set(SOL_SOCKET, SO_KEEPALIVE, 1);
    set(IPPROTO_TCP, TCP_KEEPIDLE, 30), set(IPPROTO_TCP, TCP_KEEPINTVL, 10), set(IPPROTO_TCP, TCP_KEEPCNT, 3);
    limit({});
  }

 private:
  int descriptor_;
};

struct Hello {
  std::uint64_t magic = kMagic, run = 0;
  std::int32_t size = 0, rank = 0;
};

class Sockets final : public Communicator {
 public:
  explicit Sockets(const Rendezvous& place) : place_(place), peers_(static_cast<std::size_t>(place.rank == 0 ? place.size : 1)) {
    if (place_.rank == 0)
      listen_for_all();
    else
      call_rank_0();
    for (const Connection& c : peers_) {
      if (c.is_open()) c.prepare();
    }
  }
  int rank() const override { return place_.rank; }
  int size() const override { return place_.size; }
  void all_reduce_sum(std::span<float> values) override { reduce(values, "a sum of float"); }
  void all_reduce_sum(std::span<double> values) override { reduce(values, "a sum of double"); }
  std::vector<float> all_gather_rows(std::span<const float> rows, std::int64_t columns) override {
    if (columns <= 0 || rows.size() % static_cast<std::size_t>(columns) != 0) throw ShapeError("all_gather_rows: wanted whole rows");
    return gather(rows, "a gather of float");
  }
  std::vector<std::int64_t> all_gather_rows(std::span<const std::int64_t> values) override { return gather(values, "a gather of int64"); }
  void broadcast(std::span<std::byte> bytes, int from) override {
    const Bytes all = meet("a broadcast", rank() == from ? Bytes(bytes.begin(), bytes.end()) : Bytes(),
                           [&](std::vector<Bytes>& given) { return std::move(given[static_cast<std::size_t>(from)]); });
    if (all.size() != bytes.size()) throw ShapeError("broadcast: wanted as many bytes on every rank");
    std::copy(all.begin(), all.end(), bytes.begin());
  }
  void barrier() override {
    meet("a barrier", {}, [](std::vector<Bytes>&) { return Bytes(); });
  }
  void abort(int exit_code) override { std::_Exit(exit_code); }  // the others find the connection closed

 private:
  struct Header {
    std::int64_t number = 0;  // of the collective; −1: the ranks do not agree, and what follows says how
    std::uint64_t what = 0, bytes = 0;
  };
  using Combine = std::function<Bytes(std::vector<Bytes>&)>;

  Hello hello() const { return {.run = fnv1a(place_.run), .size = place_.size, .rank = place_.rank}; }
  bool knows(const Hello& h) const { return h.magic == kMagic && h.run == fnv1a(place_.run) && h.size == place_.size; }
  Clock::time_point deadline() const {
    return Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(place_.patience_s));
  }
  Connection listen_at_first_free_port() const;
  void listen_for_all();
  void call_rank_0();
  Connection call(const addrinfo& where) const;
  [[noreturn]] void lost(int rank) const {
    throw PeerError(fmt::format("rank {} has left or its machine is gone; resume the run from its last checkpoint", rank));
  }
  Bytes meet(const char* what, const Bytes& own, const Combine& combine);
  Bytes meet_as_rank_0(const char* what, const Bytes& own, const Combine& combine);
  template <class T>
  void reduce(std::span<T> values, const char* what);
  template <class T>
  std::vector<T> gather(std::span<const T> values, const char* what);

  const Rendezvous place_;
  std::vector<Connection> peers_;  // on rank 0 one for each rank, its own closed; else rank 0
  std::int64_t number_ = 0;
};

// ---- Meeting

Connection Sockets::listen_at_first_free_port() const {
  for (int port = place_.port; port < place_.port + kPorts; ++port) {
    for (const int family : {AF_INET6, AF_INET}) {  // the first takes callers of both kinds, where the machine has it
      Connection c(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
      if (!c.is_open()) continue;
      const int yes = 1, no = 0;
      ::setsockopt(c.descriptor(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
      sockaddr_in6 v6{};
      sockaddr_in v4{};
      v6.sin6_family = AF_INET6, v6.sin6_port = htons(static_cast<std::uint16_t>(port));
      v4.sin_family = AF_INET, v4.sin_port = htons(static_cast<std::uint16_t>(port));
      if (family == AF_INET6) ::setsockopt(c.descriptor(), IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
      const bool bound = family == AF_INET6 ? ::bind(c.descriptor(), reinterpret_cast<sockaddr*>(&v6), sizeof v6) == 0
                                            : ::bind(c.descriptor(), reinterpret_cast<sockaddr*>(&v4), sizeof v4) == 0;
      if (bound && ::listen(c.descriptor(), SOMAXCONN) == 0) return c;
    }
  }
  throw ResourceError(
      fmt::format("MASTER_PORT: ports {} to {} of this machine are all in use; set another", place_.port, place_.port + kPorts - 1));
}

// Who knows the run and has a rank that is missing gets a connection; strangers are hung up on.
void Sockets::listen_for_all() {
  const Connection listening = listen_at_first_free_port();
  const auto until = deadline();
  for (int missing = place_.size - 1; missing > 0;) {
    pollfd one{listening.descriptor(), POLLIN, 0};
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
    if (left <= 0) break;
    if (::poll(&one, 1, static_cast<int>(left)) <= 0) continue;
    Connection c(::accept4(listening.descriptor(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!c.is_open()) continue;
    c.limit(kPeerAnswer);
    Hello from;
    if (!c.receive(&from, sizeof from) || !knows(from) || from.rank < 1 || from.rank >= place_.size) continue;
    Connection& peer = peers_[static_cast<std::size_t>(from.rank)];
    const Hello answer = hello();
    if (peer.is_open() || !c.send(&answer, sizeof answer)) continue;
    peer = std::move(c);
    --missing;
  }
  std::vector<int> absent;
  for (int r = 1; r < place_.size; ++r) {
    if (!peers_[static_cast<std::size_t>(r)].is_open()) absent.push_back(r);
  }
  if (!absent.empty())
    throw PeerError(fmt::format("rank {} did not come to {}:{} within {:.0f} s; are all of them started, and is the address reachable?",
                                fmt::join(absent, ", "), place_.address, place_.port, place_.patience_s));
}

Connection Sockets::call(const addrinfo& where) const {
  Connection c(::socket(where.ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!c.is_open()) return c;
  c.limit(kPeerAnswer);  // of connect too
  Hello own = hello(), answer;
  const bool met = ::connect(c.descriptor(), where.ai_addr, where.ai_addrlen) == 0 && c.send(&own, sizeof own) &&
                   c.receive(&answer, sizeof answer) && knows(answer) && answer.rank == 0;
  return met ? std::move(c) : Connection();
}

void Sockets::call_rank_0() {
  const auto until = deadline();
  while (Clock::now() < until) {
    for (int port = place_.port; port < place_.port + kPorts; ++port) {
      addrinfo hints{}, *found = nullptr;
      hints.ai_socktype = SOCK_STREAM;
      if (::getaddrinfo(place_.address.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) break;
      for (const addrinfo* a = found; a && !peers_[0].is_open(); a = a->ai_next) peers_[0] = call(*a);
      ::freeaddrinfo(found);
      if (peers_[0].is_open()) return;
    }
    std::this_thread::sleep_for(kAgain);
  }
  throw PeerError(fmt::format("rank 0 was not found at {}:{} within {:.0f} s; are MASTER_ADDR and MASTER_PORT its own?", place_.address,
                              place_.port, place_.patience_s));
}

// ---- Collectives

Bytes Sockets::meet(const char* what, const Bytes& own, const Combine& combine) {
  ++number_;
  if (rank() == 0) return meet_as_rank_0(what, own, combine);
  Header header{number_, fnv1a(what), own.size()};
  const Connection& to = peers_[0];
  if (!to.send(&header, sizeof header) || !to.send(own.data(), own.size()) || !to.receive(&header, sizeof header)) lost(0);
  Bytes result(header.bytes);
  if (!to.receive(result.data(), result.size())) lost(0);
  if (header.number < 0) throw PeerError(std::string(reinterpret_cast<const char*>(result.data()), result.size()));
  return result;
}

Bytes Sockets::meet_as_rank_0(const char* what, const Bytes& own, const Combine& combine) {
  std::vector<Bytes> given(peers_.size());
  given[0] = own;
  std::string disagreement;
  for (std::size_t r = 1; r < peers_.size(); ++r) {
    Header header;
    if (!peers_[r].receive(&header, sizeof header)) lost(static_cast<int>(r));
    given[r].resize(header.bytes);
    if (!peers_[r].receive(given[r].data(), given[r].size())) lost(static_cast<int>(r));
    if (header.number != number_ || header.what != fnv1a(what))
      disagreement = fmt::format("rank {} came to collective {} with another one than rank 0, which has {} there", r, number_, what);
  }
  Header header{disagreement.empty() ? number_ : -1, 0, 0};
  Bytes result;
  if (disagreement.empty())
    result = combine(given);
  else
    result.assign(reinterpret_cast<const std::byte*>(disagreement.data()),
                  reinterpret_cast<const std::byte*>(disagreement.data()) + disagreement.size());
  header.bytes = result.size();
  for (std::size_t r = 1; r < peers_.size(); ++r) {
    if (!peers_[r].send(&header, sizeof header) || !peers_[r].send(result.data(), result.size())) lost(static_cast<int>(r));
  }
  if (!disagreement.empty()) throw PeerError(disagreement);
  return result;
}

template <class T>
Bytes bytes_of(std::span<const T> values) {
  const auto bytes = std::as_bytes(values);
  return {bytes.begin(), bytes.end()};
}
template <class T>
std::vector<T> values_of(const Bytes& bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  return values;
}

template <class T>
void Sockets::reduce(std::span<T> values, const char* what) {
  const Bytes sum = meet(what, bytes_of(std::span<const T>(values)), [](const std::vector<Bytes>& given) {
    std::vector<T> total = values_of<T>(given[0]);
    for (std::size_t r = 1; r < given.size(); ++r) {
      const std::vector<T> other = values_of<T>(given[r]);
      if (other.size() != total.size()) throw ShapeError("all_reduce_sum: wanted as many values on every rank");
      for (std::size_t i = 0; i < total.size(); ++i) total[i] += other[i];
    }
    return bytes_of(std::span<const T>(total));
  });
  const std::vector<T> total = values_of<T>(sum);
  std::copy(total.begin(), total.end(), values.begin());
}

template <class T>
std::vector<T> Sockets::gather(std::span<const T> values, const char* what) {
  return values_of<T>(meet(what, bytes_of(values), [](const std::vector<Bytes>& given) {
    Bytes all;
    for (const Bytes& part : given) all.insert(all.end(), part.begin(), part.end());
    return all;
  }));
}

}  // namespace

std::unique_ptr<Communicator> comm_sockets(const Rendezvous& place) { return std::make_unique<Sockets>(place); }

}  // namespace lc
