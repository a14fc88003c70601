// Room a kernel needs only while it runs: one aligned buffer per thread and purpose, kept between calls.
#pragma once
#include <hwy/aligned_allocator.h>

#include <cstddef>
#include <new>

namespace lc::kernels {

inline hwy::AlignedFreeUniquePtr<float[]> aligned_floats(std::size_t floats) {
  auto room = hwy::AllocateAligned<float>(floats);
  if (!room) throw std::bad_alloc();
  return room;
}

template <class Purpose>
float* scratch(std::size_t floats) {
  thread_local hwy::AlignedFreeUniquePtr<float[]> room;
  thread_local std::size_t size = 0;
  if (size < floats) {
    room = aligned_floats(floats);
    size = floats;
  }
  return room.get();
}

}  // namespace lc::kernels
