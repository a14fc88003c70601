// Whole messages over a stream between two processes; a descriptor may come with one.
#pragma once
#include <functional>
#include <optional>
#include <utility>

#include "engine/hdf5/wire.h"

namespace lc::h5 {

class Socket {
 public:
  explicit Socket(int descriptor) : descriptor_(descriptor), buffer_(size_t{64} << 10) {}
  bool send(const Wire& wire, int descriptor = -1) const;  // false: the other side is gone
  // Empty: the other side is gone, or sent what is no message. waits: asked each time nothing came before the socket's time-out (where it
  // has one); may throw.
  std::optional<Wire> receive(const std::function<void()>& waits = {});
  int take_descriptor() { return std::exchange(received_, -1); }  // the last that came, −1: none; the caller's to close

 private:
  bool receive_all(std::byte* to, size_t bytes, const std::function<void()>& waits);
  int descriptor_, received_ = -1;
  std::vector<std::byte> buffer_;  // what came beyond a message: bytes [begin_, end_)
  size_t begin_ = 0, end_ = 0;
};

}  // namespace lc::h5
