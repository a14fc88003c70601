// cross_entropy: logits are products whose epilogue reduces them at once (forward) or turns them into their gradients (backward), a span of
// the vocabulary at a time; the products of those gradients follow span by span, so every sum has one order.
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/scratch.h"
#include "kernels/cuda/softmax_parts.cuh"

namespace lc::kernels {
namespace {

using namespace cuda;

constexpr std::int64_t kSpan = 4096;                   // of the vocabulary whose gradients of logits are held
constexpr std::int64_t kHeld = std::int64_t{1} << 24;  // of them at most, rows · span

template <class T>
struct ForwardEpilogue {
  CrossEntropyForward<T> a;
  Extent extent;  // (M, V)
  SoftmaxPart* parts;
  __device__ void operator()(const Fragment<8>& s, std::int64_t row, std::int64_t column) const {
    put_softmax_parts(s, row, column, extent, parts, [&](std::int64_t m, std::int64_t n, float x, float& wanted) {
      x += a.bias ? a.bias[n] : 0.0f;
      if (a.labels[m] == n) wanted = x;
      return x;
    });
  }
};

template <class T>
struct BackwardEpilogue {  // dlogits of one span; padding gets 0
  CrossEntropyBackward<T> a;
  std::int64_t first;  // word of the span
  Rows<T> to;
  __device__ void operator()(const Fragment<8>& s, std::int64_t row, std::int64_t column) const {
    for_pairs(s, row, column, [&](std::int64_t m, std::int64_t n, float(&v)[2]) {
      if (m >= to.rows) return;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const std::int64_t word = first + n + i;
        if (n + i >= to.columns) break;
        float d = 0;
        if (word < a.vocabulary) {
          d = fast_exp(v[i] + (a.bias ? a.bias[word] : 0.0f) - a.lse[m]) * a.dloss[0];
          if (a.labels[m] == word) d -= a.dloss[0];
        }
        to.row(m)[n + i] = from_float<T>(d);
      }
    });
  }
};

template <class T>
void forward(const Queue& queue, const CrossEntropyForward<T>& a) {
  const Extent extent{a.x.rows, a.vocabulary, a.x.columns};
  const Scratch<SoftmaxPart> parts(queue, softmax_parts(extent));
  const Scratch<double> losses(queue, a.x.rows);
  product<Stored::rows, Stored::rows>("cross_entropy_logits_kernel", queue, a.x, a.table, extent, 1,
                                      ForwardEpilogue<T>{a, extent, parts.get()});
  merge_softmax_parts(queue, parts.get(), extent, a.lse, losses.get());
  sum_in_order(queue, losses.get(), a.x.rows, 1, a.loss, Into::write);
}

template <class T>
void backward(const Queue& queue, const CrossEntropyBackward<T>& a) {
  const std::int64_t rows = a.x.rows, columns = a.x.columns;
  if (rows == 0) return;
  const std::int64_t span = std::clamp<std::int64_t>(kHeld / rows / kStripColumns * kStripColumns, kStripColumns, kSpan);
  const Scratch<T> held(queue, rows * std::min(span, ceil_div(a.table.rows, 8) * 8));
  const Scratch<float> dx(queue, a.dx ? rows * columns : 0);
  for (std::int64_t first = 0; first < a.vocabulary; first += span) {
    const std::int64_t words = std::min(span, a.table.rows - first), stride = ceil_div(words, 8) * 8;
    const Rows<T> d{held.get(), rows, words, stride};
    const Rows<const T> table{a.table.row(first), words, columns, a.table.stride};
    product<Stored::rows, Stored::rows>("cross_entropy_gradient_kernel", queue, a.x, table, {rows, words, columns}, 1,
                                        BackwardEpilogue<T>{a, first, d});
    if (a.dx) {
      float_product<T>(queue, {.a = d, .b = table, .c = {dx.get(), rows, columns, columns}, .into = first == 0 ? Into::write : Into::add});
    }
    const std::int64_t known = std::min(words, a.vocabulary - first);
    if (a.dtable) linear_weight_gradient<Device::cuda, T>(queue, {.dy = d, .x = a.x, .dw = a.dtable + first * columns});
    if (a.dbias) linear_weight_gradient<Device::cuda, T>(queue, {.dy = {d.data, rows, known, stride}, .x = a.x, .dbias = a.dbias + first});
  }
  if (a.dx) convert<Device::cuda, float, T>(queue, {{dx.get(), rows, columns, columns}, a.dx.to, a.dx.into});
}

}  // namespace

template <>
void cross_entropy_forward<Device::cuda, float>(Queue queue, const CrossEntropyForward<float>& a) {
  forward(queue, a);
}
template <>
void cross_entropy_forward<Device::cuda, bf16>(Queue queue, const CrossEntropyForward<bf16>& a) {
  forward(queue, a);
}
template <>
void cross_entropy_backward<Device::cuda, float>(Queue queue, const CrossEntropyBackward<float>& a) {
  backward(queue, a);
}
template <>
void cross_entropy_backward<Device::cuda, bf16>(Queue queue, const CrossEntropyBackward<bf16>& a) {
  backward(queue, a);
}

}  // namespace lc::kernels
