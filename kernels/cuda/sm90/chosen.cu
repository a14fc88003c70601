#include <cstdlib>
#include <cstring>

#include "kernels/cuda/sm90/tile.cuh"

namespace lc::cuda::sm90 {

bool chosen(const Queue& queue) {
  const char* const wanted = std::getenv("LANGCELL_SM90");
  if (wanted != nullptr && std::strcmp(wanted, "0") == 0) return false;
  int major = 0, minor = 0;
  check("attention", cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, queue.index));
  check("attention", cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, queue.index));
  return major == 9 && minor == 0;
}

}  // namespace lc::cuda::sm90
