// A failure of oneDNN keeps its meaning: memory that ran out must end the program with the exit code of resources, not as a bug of ours.
#include "kernels/cpu/onednn.h"

#include <gtest/gtest.h>

#include <new>
#include <stdexcept>

namespace lc::kernels {
namespace {

TEST(OneDnn, RunningOutOfMemoryIsBadAlloc) { EXPECT_THROW(require_onednn(dnnl_out_of_memory), std::bad_alloc); }
TEST(OneDnn, AnyOtherFailureIsOurOwnBugWithItsStatus) {
  try {
    require_onednn(dnnl_invalid_arguments);
    FAIL() << "accepted";
  } catch (const std::runtime_error& e) {
    EXPECT_NE(std::string(e.what()).find(std::to_string(dnnl_invalid_arguments)), std::string::npos) << e.what();
  }
}
TEST(OneDnn, SuccessIsSilent) { EXPECT_NO_THROW(require_onednn(dnnl_success)); }

}  // namespace
}  // namespace lc::kernels
