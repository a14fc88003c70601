// cross_entropy: softmax cross-entropy over the vocabulary at given rows, summed; no logits are kept.
#include <fmt/format.h>

#include "engine/errors.h"
#include "engine/op.h"
#include "engine/ops.h"

namespace lc {
namespace {

struct CrossEntropy {
  static constexpr const char* name = "cross_entropy";

  Plan plan(In in) const {
    const Tensor &x = in[0], &table = in[1], &bias = in[2], &labels = in[3];
    require_storage_type(name, x);
    const bool vectors =
        bias.shape().rank() == 1 && bias.dtype() == DType::f32 && labels.shape() == Shape{x.rows()} && labels.dtype() == DType::i32;
    const bool tables = x.shape().rank() == 2 && table.shape().rank() == 2 && table.columns() == x.columns() &&
                        table.dtype() == x.dtype() && table.rows() >= bias.columns();
    if (!vectors || !tables) {
      throw ShapeError(fmt::format(
          "cross_entropy: wanted x (M, C), table (≥ V, C) of its type, bias (V) f32, labels (M) i32, got {} {}, {} {}, {} {}, {} {}",
          x.shape().text(), name_of(x.dtype()), table.shape().text(), name_of(table.dtype()), bias.shape().text(), name_of(bias.dtype()),
          labels.shape().text(), name_of(labels.dtype())));
    }
    return {.output = {{1}, DType::f32},
            .saved = {{{x.rows()}, DType::f32, Keep::always}},
            .flops = 2.0 * static_cast<double>(x.rows()) * static_cast<double>(bias.columns()) * static_cast<double>(x.columns())};
  }

  void forward(Queue queue, In in, Tensor& out, Saved& saved) const {
    on(queue, in[0].dtype(), [&]<Device D, class T>() {
      kernels::cross_entropy_forward<D, T>(queue, {.x = in[0].view<const T>(),
                                                   .table = in[1].view<const T>(),
                                                   .bias = in[2].data<float>(),
                                                   .vocabulary = in[2].columns(),
                                                   .labels = in[3].data<std::int32_t>(),
                                                   .lse = saved.data(0),
                                                   .loss = out.data<float>()});
    });
  }

  void backward(Queue queue, In in, const Saved& saved, const Tensor& dout, Gradients& d) const {
    on(queue, in[0].dtype(), [&]<Device D, class T>() {
      kernels::cross_entropy_backward<D, T>(queue, {.x = in[0].view<const T>(),
                                                    .table = in[1].view<const T>(),
                                                    .bias = in[2].data<float>(),
                                                    .vocabulary = in[2].columns(),
                                                    .labels = in[3].data<std::int32_t>(),
                                                    .lse = saved.data(0),
                                                    .dloss = dout.data<float>(),
                                                    .dx = d.to<T>(0),
                                                    .dtable = d.parameter(1),
                                                    .dbias = d.parameter(2)});
    });
  }
};

}  // namespace

Tensor cross_entropy(const Tensor& x, const Tensor& table, const Tensor& bias, const Tensor& labels) {
  return apply(CrossEntropy{}, {x, table, bias, labels});
}

}  // namespace lc
