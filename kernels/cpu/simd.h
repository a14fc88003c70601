// Include before <hwy/foreach_target.h>: which instruction sets the kernels are compiled for. On x86-64 these are SSE4 (the least),
// AVX2 and AVX-512, chosen at run time. Highway's own least one is plain scalar code without the shuffles the kernels need.
#pragma once
#if defined(__x86_64__)
#define HWY_BASELINE_TARGETS HWY_SSE4
#endif
