// A failure of oneDNN keeps its meaning: memory that ran out must end the program with the exit code of resources, not as a bug of ours.
#include "kernels/cpu/onednn.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <new>
#include <stdexcept>
#include <vector>

#include "kernels/cpu/loss_tiles.h"
#include "kernels/kernels.h"

namespace lc::kernels {
namespace {

bool out_of_memory = false;  // what the library's product says, see below

TEST(OneDnn, RunningOutOfMemoryIsBadAlloc) { EXPECT_THROW(require_onednn(dnnl_out_of_memory), std::bad_alloc); }
TEST(OneDnn, AnyOtherFailureIsOurOwnBugWithItsStatus) {
  try {
    require_onednn(dnnl_invalid_arguments);
    FAIL() << "accepted";
  } catch (const std::runtime_error& e) {
    EXPECT_NE(std::string(e.what()).find(std::to_string(dnnl_invalid_arguments)), std::string::npos) << e.what();
  }
}
TEST(OneDnn, AProductOfALossOrALayerThatRunsOutOfMemoryIsBadAlloc) {
  std::vector<float> a(6, 1.0f), b(6, 1.0f), c(4);
  const auto of_a_loss = [&] {
    loss_tiles::multiply({.rows = 2,
                          .columns = 2,
                          .inner = 3,
                          .left = a.data(),
                          .left_stride = 3,
                          .right = b.data(),
                          .right_stride = 2,
                          .out = c.data(),
                          .out_stride = 2});
  };
  const auto of_a_layer = [&] {
    LinearForward<float> f;
    f.x = {a.data(), 2, 3, 3}, f.w = {b.data(), 2, 3, 3}, f.y = {c.data(), 2, 2, 2};
    linear_forward<Device::cpu, float>({}, f);
  };
  EXPECT_NO_THROW(of_a_loss());
  EXPECT_EQ(c, std::vector<float>(4, 3.0f));
  EXPECT_NO_THROW(of_a_layer());
  const int threads = omp_get_max_threads();
  out_of_memory = true;
  EXPECT_THROW(of_a_loss(), std::bad_alloc);
  EXPECT_THROW(of_a_layer(), std::bad_alloc);
  out_of_memory = false;
  EXPECT_EQ(omp_get_max_threads(), threads);
}

TEST(OneDnn, SuccessIsSilent) { EXPECT_NO_THROW(require_onednn(dnnl_success)); }

}  // namespace
}  // namespace lc::kernels

// Stands before the library's own.
extern "C" dnnl_status_t dnnl_sgemm(char transa, char transb, dnnl_dim_t m, dnnl_dim_t n, dnnl_dim_t k, float alpha, const float* a,
                                    dnnl_dim_t lda, const float* b, dnnl_dim_t ldb, float beta, float* c, dnnl_dim_t ldc) {
  static const auto own = reinterpret_cast<decltype(&dnnl_sgemm)>(dlsym(RTLD_NEXT, "dnnl_sgemm"));
  return lc::kernels::out_of_memory ? dnnl_out_of_memory : own(transa, transb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
