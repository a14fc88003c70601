// Memory and copies on CUDA devices, in the order of the queue's stream: the engine's only door to the CUDA runtime.
// Plain C++: programs without CUDA find the same names in absent_device.cpp.
#pragma once
#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "kernels/numeric.h"

namespace lc::cuda {

struct Bytes {  // rows of bytes, a step apart in either place
  std::size_t width = 0, rows = 0, to_step = 0, from_step = 0;
};

std::vector<std::string> devices();                     // their names and memory; empty where there are none
std::string why_not(const Queue& queue);                // "" when work can run there, else the reason
void* allocate(const Queue& queue, std::size_t bytes);  // null when there is none left
void release(const Queue& queue, void* p) noexcept;
void upload(const Queue& queue, void* to, const void* from, const Bytes& bytes);    // `from` may be changed at once
void download(const Queue& queue, void* to, const void* from, const Bytes& bytes);  // waits until the numbers are there
void clear(const Queue& queue, void* to, const Bytes& bytes);                       // from_step is not looked at
void wait(const Queue& queue);                                                      // until all is done that was asked for
double seconds_of(const Queue& queue, const std::function<void()>& work);           // on the device, by its own clock; waits for it

}  // namespace lc::cuda
