// What the floors above the engine may know of the machine: its threads, its instruction set, its measured peak, its clock.
#pragma once
#include <chrono>

#include "kernels/cpu/dispatch.h"
#include "kernels/numeric.h"

namespace lc {

using kernels::cpu_has_amx;
using kernels::instruction_set;
using kernels::MachinePeak;
using kernels::measure_peak;
using kernels::parallel_for;
using kernels::start_threads;

// Of a clock that only goes on: the difference of two calls is time passed.
inline double seconds_now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// What `precision = "auto"` means: without tile instructions a CPU's bf16 is slower than float.
enum class Work : std::uint8_t { training, inference };
inline DType automatic_precision(Work work, Device device) {
  if (device == Device::cuda) return DType::bf16;
  return work == Work::training && cpu_has_amx() ? DType::bf16 : DType::f32;
}

}  // namespace lc
