// Device memory that a launcher needs for the length of its kernels, from the stream-ordered pool: given back in the order of the stream.
#pragma once
#include <cstdint>
#include <new>

#include "kernels/cuda/device.h"

namespace lc::cuda {

template <class T>
class Scratch {
 public:
  Scratch(const Queue& queue, std::int64_t count) : queue_(queue) {  // std::bad_alloc when there is none left
    if (count > 0) data_ = static_cast<T*>(lc::cuda::allocate(queue, static_cast<std::size_t>(count) * sizeof(T)));
    if (count > 0 && !data_) throw std::bad_alloc();
  }
  ~Scratch() {
    if (data_) release(queue_, data_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* get() const { return data_; }

 private:
  Queue queue_;
  T* data_ = nullptr;
};

}  // namespace lc::cuda
