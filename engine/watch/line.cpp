#include "engine/watch/line.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <random>
#include <sstream>
#include <utility>

namespace lc {
namespace {

using Clock = std::chrono::steady_clock;
using Until = Clock::time_point;
constexpr std::chrono::seconds kConnect{3}, kMeet{15};
constexpr std::size_t kLongest = std::size_t{1} << 16, kMostWaiting = std::size_t{1} << 18;

struct Header {  // ranks are of one build (compare_ranks in train/pretrain.cpp), so bytes are as they lie
  std::uint32_t text_bytes;
  std::int32_t word, rank, code;
  Standing standing;
};

bool would_wait() { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

bool wait_for(int descriptor, short what, Until until) {
  pollfd one{descriptor, what, 0};
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
    if (left <= 0) return false;
    const int ready = ::poll(&one, 1, static_cast<int>(left));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

}  // namespace

Line::Line(Line&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)), in_(std::move(other.in_)), out_(std::move(other.out_)) {}
Line& Line::operator=(Line&& other) noexcept {
  std::swap(descriptor_, other.descriptor_), std::swap(in_, other.in_), std::swap(out_, other.out_);
  return *this;
}

void Line::close() {
  if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
}

void Line::send(const Message& m) {
  if (!is_open() || (m.word == Word::beat && out_.size() > kMostWaiting)) return;  // nobody reads: beats are not hoarded
  const std::string_view text = std::string_view(m.text).substr(0, kLongest);
  const Header header{static_cast<std::uint32_t>(text.size()), static_cast<std::int32_t>(m.word), m.rank, m.code, m.standing};
  out_.append(reinterpret_cast<const char*>(&header), sizeof header).append(text);
  flush();
}

void Line::flush() {
  while (is_open() && !out_.empty()) {
    const ssize_t sent = ::send(descriptor_, out_.data(), out_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) {
      if (!would_wait()) out_.clear();  // the other end is gone, as receive() will find after what it said last
      return;
    }
    out_.erase(0, static_cast<std::size_t>(sent));
  }
}

bool Line::receive(std::vector<Message>& into) {
  bool lives = is_open();
  for (char buffer[4096]; lives;) {
    const ssize_t n = ::recv(descriptor_, buffer, sizeof buffer, MSG_DONTWAIT);
    if (n > 0) {
      in_.append(buffer, static_cast<std::size_t>(n));
      continue;
    }
    if (n < 0 && errno == EINTR) continue;
    lives = n < 0 && would_wait();
    break;
  }
  std::size_t at = 0;
  for (Header h; in_.size() - at >= sizeof h;) {
    std::memcpy(&h, in_.data() + at, sizeof h);
    if (h.text_bytes > kLongest) return false;  // no message of ours
    if (in_.size() - at < sizeof h + h.text_bytes) break;
    h.standing.name.back() = '\0';
    into.push_back({static_cast<Word>(h.word), h.rank, h.code, h.standing, in_.substr(at + sizeof h, h.text_bytes)});
    at += sizeof h + h.text_bytes;
  }
  in_.erase(0, at);
  return lives;
}

namespace {

struct Place {  // where rank 0 listens
  std::string secret, port;
  std::vector<std::string> addresses;  // numeric; the machine's own last
};

std::vector<std::string> addresses_of_this_machine() {
  std::vector<std::string> found, own;
  ifaddrs* all = nullptr;
  if (::getifaddrs(&all) != 0) return {"127.0.0.1"};
  for (const ifaddrs* a = all; a; a = a->ifa_next) {
    if (!a->ifa_addr || !(a->ifa_flags & IFF_UP)) continue;
    const int family = a->ifa_addr->sa_family;
    const bool v4 = family == AF_INET;
    if (!v4 && family != AF_INET6) continue;
    char text[NI_MAXHOST] = "";
    if (::getnameinfo(a->ifa_addr, v4 ? sizeof(sockaddr_in) : sizeof(sockaddr_in6), text, sizeof text, nullptr, 0, NI_NUMERICHOST) != 0)
      continue;
    if (std::strchr(text, '%')) continue;  // of this link alone
    (a->ifa_flags & IFF_LOOPBACK ? own : found).push_back(text);
  }
  ::freeifaddrs(all);
  std::ranges::stable_partition(found, [](const std::string& a) { return a.find(':') == std::string::npos; });
  found.insert(found.end(), own.begin(), own.end());
  return found;
}

int listening_socket(std::string& port) {
  for (const int family : {AF_INET6, AF_INET}) {  // the first takes callers of both kinds, where the machine has it
    const int s = ::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s < 0) continue;
    const int no = 0;
    if (family == AF_INET6) ::setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
    sockaddr_storage any{};
    any.ss_family = static_cast<sa_family_t>(family);
    socklen_t size = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
    char text[NI_MAXSERV] = "";
    if (::bind(s, reinterpret_cast<sockaddr*>(&any), size) == 0 && ::listen(s, SOMAXCONN) == 0 &&
        ::getsockname(s, reinterpret_cast<sockaddr*>(&any), &size) == 0 &&
        ::getnameinfo(reinterpret_cast<sockaddr*>(&any), size, nullptr, 0, text, sizeof text, NI_NUMERICSERV) == 0) {
      port = text;
      return s;
    }
    ::close(s);
  }
  return -1;
}

void talk_at_once(int descriptor) {
  const int yes = 1;
  ::setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

int call(const std::string& address, const std::string& port) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM, hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  if (::getaddrinfo(address.c_str(), port.c_str(), &hints, &found) != 0) return -1;
  const int s = ::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  bool reached = s >= 0 && ::connect(s, found->ai_addr, found->ai_addrlen) == 0;
  if (s >= 0 && !reached && errno == EINPROGRESS && wait_for(s, POLLOUT, Clock::now() + kConnect)) {
    int error = 0;
    socklen_t size = sizeof error;
    reached = ::getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
  }
  ::freeaddrinfo(found);
  if (reached) return talk_at_once(s), s;
  if (s >= 0) ::close(s);
  return -1;
}

// The first message that comes, if it knows the secret.
bool hears_hello(Line& line, const std::string& secret, Until until, Message& hello) {
  std::vector<Message> come;
  while (come.empty()) {
    if (!wait_for(line.descriptor(), POLLIN, until) || !line.receive(come)) return false;
  }
  hello = come.front();
  return hello.word == Word::hello && hello.text == secret;
}

Line reach(const Place& place, int rank) {
  for (const std::string& address : place.addresses) {
    Line line(call(address, place.port));
    line.send({.word = Word::hello, .rank = rank, .text = place.secret});
    Message answer;
    if (line.is_open() && hears_hello(line, place.secret, Clock::now() + kConnect, answer)) return line;
  }
  return Line();
}

// Who calls and knows the secret gets the line of its rank; strangers are hung up on.
void answer_all(int listening, const std::string& secret, std::vector<Line>& lines) {
  const Until until = Clock::now() + kMeet;
  for (std::size_t missing = lines.size() - 1; missing > 0 && wait_for(listening, POLLIN, until);) {
    Line line(::accept4(listening, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!line.is_open()) continue;
    talk_at_once(line.descriptor());
    Message hello;
    if (!hears_hello(line, secret, std::min(until, Clock::now() + std::chrono::seconds(1)), hello)) continue;
    const auto rank = static_cast<std::size_t>(hello.rank);
    if (rank == 0 || rank >= lines.size()) continue;
    line.send({.word = Word::hello, .text = secret});
    missing -= !lines[rank].is_open();
    lines[rank] = std::move(line);
  }
}

std::string share(Communicator& ranks, std::string text) {
  auto size = static_cast<std::int64_t>(text.size());
  ranks.broadcast(std::as_writable_bytes(std::span(&size, 1)), 0);
  text.resize(static_cast<std::size_t>(size));
  ranks.broadcast(std::as_writable_bytes(std::span(text)), 0);
  return text;
}

}  // namespace

Lines connect_ranks(Communicator& ranks) {
  Lines lines;
  int listening = -1;
  Place place;
  if (ranks.rank() == 0) {
    std::random_device chance;
    place.secret = fmt::format("{:08x}{:08x}{:08x}{:08x}", chance(), chance(), chance(), chance());
    listening = listening_socket(place.port);
    if (listening < 0) place.port = "0";
    place.addresses = addresses_of_this_machine();
  }
  std::istringstream text(share(ranks, fmt::format("{} {} {}", place.secret, place.port, fmt::join(place.addresses, " "))));
  lines.to.resize(ranks.rank() == 0 ? static_cast<std::size_t>(ranks.size()) : 1);
  if (ranks.rank() == 0) {
    if (listening >= 0) answer_all(listening, place.secret, lines.to), ::close(listening);
  } else {
    place = {};
    text >> place.secret >> place.port;
    for (std::string address; text >> address;) place.addresses.push_back(address);
    lines.to[0] = reach(place, ranks.rank());
  }
  const std::int64_t reached = ranks.rank() == 0 || lines.to[0].is_open();
  const std::vector<std::int64_t> all = ranks.all_gather_rows(std::span(&reached, 1));
  for (std::size_t r = 0; r < all.size(); ++r) {
    if (!all[r]) lines.unreached += fmt::format("{}{}", lines.unreached.empty() ? "" : ", ", r);
  }
  if (!lines.unreached.empty()) lines.to.clear();
  return lines;
}

}  // namespace lc
