#include "engine/hdf5/socket.h"

#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "engine/hdf5/verbs.h"

namespace lc::h5 {

namespace {

bool send_all(int socket, const void* from, size_t bytes) {
  const auto* at = static_cast<const char*>(from);
  while (bytes > 0) {
    const ssize_t sent = ::send(socket, at, bytes, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    at += sent, bytes -= static_cast<size_t>(sent);
  }
  return true;
}

bool send_with_descriptor(int socket, const std::uint64_t& head, int descriptor) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  iovec part{const_cast<std::uint64_t*>(&head), sizeof head};
  msghdr message{};
  message.msg_iov = &part, message.msg_iovlen = 1;
  message.msg_control = control, message.msg_controllen = sizeof control;
  cmsghdr* attached = CMSG_FIRSTHDR(&message);
  attached->cmsg_level = SOL_SOCKET, attached->cmsg_type = SCM_RIGHTS, attached->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(attached), &descriptor, sizeof descriptor);
  ssize_t sent = 0;
  do sent = sendmsg(socket, &message, MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  return sent == sizeof head;
}

}  // namespace

bool Socket::send(const Wire& wire, int descriptor) const {
  const std::uint64_t head = wire.bytes().size();
  const bool sent = descriptor < 0 ? send_all(descriptor_, &head, sizeof head) : send_with_descriptor(descriptor_, head, descriptor);
  return sent && send_all(descriptor_, wire.bytes().data(), wire.bytes().size());
}

bool Socket::receive_all(void* to, size_t bytes, int* descriptor) const {
  auto* at = static_cast<char*>(to);
  while (bytes > 0) {
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    iovec part{at, bytes};
    msghdr message{};
    message.msg_iov = &part, message.msg_iovlen = 1;
    if (descriptor) message.msg_control = control, message.msg_controllen = sizeof control;
    const ssize_t got = recvmsg(descriptor_, &message, MSG_CMSG_CLOEXEC);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    if (const cmsghdr* attached = descriptor ? CMSG_FIRSTHDR(&message) : nullptr; attached && attached->cmsg_type == SCM_RIGHTS)
      std::memcpy(descriptor, CMSG_DATA(attached), sizeof *descriptor);
    at += got, bytes -= static_cast<size_t>(got);
  }
  return true;
}

std::optional<Socket::Message> Socket::receive() const {
  Message message;
  std::uint64_t head = 0;
  if (!receive_all(&head, sizeof head, &message.descriptor) || head > kLargestMessage) return std::nullopt;
  message.wire.bytes().resize(head);
  if (!receive_all(message.wire.bytes().data(), head, nullptr)) return std::nullopt;
  return message;
}

}  // namespace lc::h5
