// What the floors above the engine may know of the machine: its threads, its instruction set, its measured peak.
#pragma once
#include "kernels/cpu/dispatch.h"

namespace lc {

using kernels::cpu_has_amx;
using kernels::instruction_set;
using kernels::MachinePeak;
using kernels::measure_peak;
using kernels::parallel_for;

}  // namespace lc
