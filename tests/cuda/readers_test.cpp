// Who reads a key sequence stands in the list of its strips: dk and dv look nowhere else, or thousands of pairs would cost their square.
#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "engine/packing.h"
#include "kernels/kernels.h"
#include "tests/shim/shim.h"
#include "tests/support/op_case.h"

namespace lc::test {
namespace {

const Queue kQueue{Device::cuda};

PackingPtr pairs_of_cells() { return Packing::make({{7, 40, 0, 40, 65, 1, 3}, {1, 2, 3, 4, 5, 6, 7}, {2, 0, 0, 1, 0, 1, 0}}, kQueue); }

// dk and dv of texts that read two of three cells; `kv_of` in place of their own list of whom they read.
template <class T>
std::array<std::vector<float>, 2> key_gradients(const std::int32_t* kv_of) {
  const PackingPtr texts = pairs_of_cells(), cells = Packing::make({{133, 20, 9, 5}, {8, 9, 10, 11}, {}}, kQueue);
  const auto random = [](std::int64_t rows, std::uint64_t seed) {
    const std::vector<float> x = random_tensor({rows, 64}, DType::f32, seed).to_host<float>();
    return Tensor::from(std::span<const float>(x), {rows, 64}, kQueue).to(dtype_of<T>);
  };
  const std::int64_t n = texts->tokens(), m = cells->tokens();
  const Tensor q = random(n, 1), o = random(n, 2), d_o = random(n, 3), k = random(m, 4), v = random(m, 5);
  const Tensor lse = Tensor::zeros({n}, DType::f32, kQueue),
               room = Tensor::zeros({static_cast<std::int64_t>(kernels::attention_workspace(1, n))}, DType::f32, kQueue);
  const Tensor dk = Tensor::zeros(k.shape(), k.dtype(), kQueue), dv = Tensor::zeros(v.shape(), v.dtype(), kQueue);
  kernels::PackingView queries = texts->view();
  if (kv_of) queries.kv_of = kv_of;
  kernels::AttentionBackward<T> a;
  a.q = q.view<const T>(), a.k = k.view<const T>(), a.v = v.view<const T>(), a.o = o.view<const T>(), a.d_o = d_o.view<const T>();
  a.scale = 0.125f, a.queries = queries, a.keys = cells->own_view(), a.lse = lse.data<float>(), a.workspace = room.data<float>();
  a.dk.to = dk.view<T>(), a.dv.to = dv.view<T>();
  kernels::attention_backward<Device::cuda, T>(kQueue, a);
  return {dk.to(DType::f32).to_host<float>(), dv.to(DType::f32).to_host<float>()};
}

template <class T>
void expect_the_list_is_enough() {
  const Tensor nobody = Tensor::from(std::vector<std::int32_t>(7, -1), kQueue);
  const auto wanted = key_gradients<T>(nullptr);
  ASSERT_NE(wanted[0][0], 0);
  EXPECT_EQ(key_gradients<T>(nobody.data<std::int32_t>()), wanted);
}

TEST(CudaReaders, key_gradients_find_the_queries_by_the_list) {
  expect_the_list_is_enough<float>();
  expect_the_list_is_enough<bf16>();
}

TEST(HopperReaders, key_gradients_find_the_queries_by_the_list) {
  shim::compute_major = 9, shim::shared_limit = 227 * 1024;
  expect_the_list_is_enough<bf16>();
  shim::compute_major = 8, shim::shared_limit = 163 * 1024;
}

}  // namespace
}  // namespace lc::test
