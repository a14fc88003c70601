// The fallback of device.h where a program is linked without CUDA.
#include <stdexcept>

#include "kernels/cuda/device.h"

namespace lc::cuda {
namespace {

constexpr const char* kReason = "this build has no CUDA; use --device cpu";

}  // namespace

std::vector<std::string> devices() { return {}; }
std::string why_not(const Queue&) { return kReason; }
void* allocate(const Queue&, std::size_t) { return nullptr; }
void release(const Queue&, void*) noexcept {}
void upload(const Queue&, void*, const void*, const Bytes&) { throw std::runtime_error(kReason); }
void download(const Queue&, void*, const void*, const Bytes&) { throw std::runtime_error(kReason); }
void clear(const Queue&, void*, const Bytes&) { throw std::runtime_error(kReason); }
void wait(const Queue&) {}
double seconds_of(const Queue&, const std::function<void()>&) { throw std::runtime_error(kReason); }

}  // namespace lc::cuda
