// Whole messages over a stream between two processes, with a descriptor in the first byte's company.
#pragma once
#include <optional>

#include "engine/hdf5/wire.h"

namespace lc::h5 {

class Socket {
 public:
  struct Message {
    Wire wire;
    int descriptor = -1;  // that came with it; the receiver's to close
  };
  explicit Socket(int descriptor) : descriptor_(descriptor) {}
  int descriptor() const { return descriptor_; }
  bool send(const Wire& wire, int descriptor) const;  // false: the other side is gone. descriptor −1: none
  std::optional<Message> receive() const;             // empty: the other side is gone, or sent what is no message

 private:
  bool receive_all(void* to, size_t bytes, int* descriptor) const;
  int descriptor_;
};

}  // namespace lc::h5
