#include "engine/hdf5/socket.h"

#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "engine/hdf5/verbs.h"

namespace lc::h5 {

bool Socket::send(const Wire& wire, int descriptor) const {
  std::uint64_t head = wire.bytes().size();
  iovec parts[] = {{&head, sizeof head}, {const_cast<std::byte*>(wire.bytes().data()), wire.bytes().size()}};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = parts, message.msg_iovlen = 2;
  if (descriptor >= 0) {
    message.msg_control = control, message.msg_controllen = sizeof control;
    cmsghdr* attached = CMSG_FIRSTHDR(&message);
    attached->cmsg_level = SOL_SOCKET, attached->cmsg_type = SCM_RIGHTS, attached->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(attached), &descriptor, sizeof descriptor);
  }
  while (message.msg_iovlen > 0) {
    const ssize_t sent = sendmsg(descriptor_, &message, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    message.msg_control = nullptr, message.msg_controllen = 0;
    for (auto left = static_cast<size_t>(sent); message.msg_iovlen > 0;) {
      iovec& part = *message.msg_iov;
      const size_t n = std::min(left, part.iov_len);
      part.iov_base = static_cast<char*>(part.iov_base) + n, part.iov_len -= n, left -= n;
      if (part.iov_len > 0) break;
      ++message.msg_iov, --message.msg_iovlen;
    }
  }
  return true;
}

bool Socket::receive_all(std::byte* to, size_t bytes, const std::function<void()>& waits) {
  for (;;) {
    const size_t n = std::min(bytes, end_ - begin_);
    std::copy_n(buffer_.begin() + static_cast<std::ptrdiff_t>(begin_), n, to);
    begin_ += n, to += n, bytes -= n;
    if (bytes == 0) return true;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    iovec parts[] = {{to, bytes}, {buffer_.data(), buffer_.size()}};
    msghdr message{};
    message.msg_iov = parts, message.msg_iovlen = 2, message.msg_control = control, message.msg_controllen = sizeof control;
    const ssize_t got = recvmsg(descriptor_, &message, MSG_CMSG_CLOEXEC);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) && waits) waits();
    if (got < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK)) continue;
    if (got <= 0) return false;
    if (const cmsghdr* attached = CMSG_FIRSTHDR(&message); attached && attached->cmsg_type == SCM_RIGHTS) {
      if (received_ >= 0) ::close(received_);
      std::memcpy(&received_, CMSG_DATA(attached), sizeof received_);
    }
    const size_t direct = std::min(bytes, static_cast<size_t>(got));
    to += direct, bytes -= direct;
    begin_ = 0, end_ = static_cast<size_t>(got) - direct;
  }
}

std::optional<Wire> Socket::receive(const std::function<void()>& waits) {
  std::uint64_t head = 0;
  if (!receive_all(reinterpret_cast<std::byte*>(&head), sizeof head, waits) || head > kLargestMessage) return std::nullopt;
  std::vector<std::byte> bytes(head);
  if (!receive_all(bytes.data(), head, waits)) return std::nullopt;
  return Wire(std::move(bytes));
}

}  // namespace lc::h5
