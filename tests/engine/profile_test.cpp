#include "engine/profile.h"

#include <gtest/gtest.h>

#include <limits>

#include "engine/errors.h"
#include "engine/tape.h"
#include "tests/support/op_case.h"

namespace lc::test {
namespace {

class Switched {  // what is switched on for a test is off after it
 public:
  Switched() : before_(inspection()) {}
  ~Switched() { inspection() = before_; }
  Switched(const Switched&) = delete;
  Switched& operator=(const Switched&) = delete;

 private:
  Inspection before_;
};

TEST(inspection, check_finite_names_the_first_operator_and_the_place) {
  const Switched restore;
  const Tensor x = random_tensor(Shape{3, 33}, DType::f32, 1), w = random_tensor(Shape{7, 33}, DType::f32, 2);
  w.data<float>()[5 * 33] = std::numeric_limits<float>::infinity();
  EXPECT_NO_THROW(linear(x, w, {}));
  inspection().check_finite = true;
  try {
    linear(x, w, {});
    FAIL() << "no error";
  } catch (const NumericalError& e) {
    EXPECT_NE(std::string(e.what()).find("matmul: forward"), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("row 0, column 5"), std::string::npos) << e.what();
  }
}

TEST(inspection, check_finite_names_the_operator_whose_backward_made_it) {
  const Switched restore;
  inspection().check_finite = true;
  Tape tape;
  const Tensor x = tape.watch(random_tensor(Shape{3, 33}, DType::f32, 1)), w = random_tensor(Shape{7, 33}, DType::f32, 2);
  const Tensor y = l2_normalize(linear(x, w, {}));
  w.data<float>()[0] = std::numeric_limits<float>::quiet_NaN();  // after forward: only the gradient of x meets it
  try {
    tape.backward({{y, random_tensor(Shape{3, 7}, DType::f32, 3)}});
    FAIL() << "no error";
  } catch (const NumericalError& e) {
    EXPECT_NE(std::string(e.what()).find("matmul: backward"), std::string::npos) << e.what();
  }
}

TEST(inspection, profile_counts_calls_bytes_and_operations) {
  const Switched restore;
  reset_profile();
  const Tensor x = random_tensor(Shape{65, 33}, DType::f32, 1), w = random_tensor(Shape{7, 33}, DType::f32, 2);
  linear(x, w, {});
  EXPECT_EQ(profile_table(1, 1).find("matmul"), std::string::npos);
  inspection().profile = true;
  Tape tape;
  const Tensor watched = tape.watch(x), y = linear(watched, w, {});
  tape.backward({{y, y.detached()}});
  const std::string table = profile_table(1, 1);
  EXPECT_NE(table.find("matmul             forward          1"), std::string::npos) << table;
  EXPECT_NE(table.find("matmul             backward         1"), std::string::npos) << table;
  reset_profile();
}

}  // namespace
}  // namespace lc::test
