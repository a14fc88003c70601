// activation(x wᵀ + b). Backward needs y after a ReLU, the pre-activation after a GELU, neither without an activation.
#include <fmt/format.h>

#include "engine/errors.h"
#include "engine/op.h"
#include "engine/ops.h"

namespace lc {
namespace {

enum Input : int { kX, kWeight, kBias };

struct LinearOp {
  static constexpr const char* name = "matmul";
  Activation activation;

  void check(const Tensor& x, const Tensor& w, const Tensor& b) const {
    require_storage_type(name, x);
    const auto refuse = [](const char* what, const std::string& wanted, const Tensor& got) {
      throw ShapeError(fmt::format("matmul: wanted {} {}, got {} {}", what, wanted, got.shape().text(), name_of(got.dtype())));
    };
    if (x.shape().rank() != 2) refuse("x", "(T, K)", x);
    if (w.shape().rank() != 2 || w.columns() != x.columns() || w.dtype() != x.dtype()) {
      refuse("weights", fmt::format("(N, {}) {}", x.columns(), name_of(x.dtype())), w);
    }
    if (b && (b.shape() != Shape{w.rows()} || b.dtype() != DType::f32)) refuse("a bias", fmt::format("({}) f32", w.rows()), b);
  }

  Plan plan(In in) const {
    const Tensor &x = in[kX], &w = in[kWeight];
    check(x, w, in[kBias]);
    const Spec y{{x.rows(), w.rows()}, x.dtype()};
    Plan p{.output = y,
           .unsaved_inputs = {kBias},
           .saves_output = activation == Activation::relu,
           .flops = 2.0 * static_cast<double>(x.shape().count()) * static_cast<double>(w.rows())};
    if (activation == Activation::gelu) p.saved = {y};
    if (!w.tape()) p.unsaved_inputs.push_back(kX);
    if (!x.tape()) p.unsaved_inputs.push_back(kWeight);
    return p;
  }

  void forward(Queue queue, In in, Tensor& out, Saved& saved) const {
    on(queue, out.dtype(), [&]<Device D, class T>() {
      kernels::LinearForward<T> a;
      a.x = in[kX].view<const T>(), a.w = in[kWeight].view<const T>(), a.bias = in[kBias] ? in[kBias].data<float>() : nullptr;
      a.activation = activation, a.y = out.view<T>();
      if (activation == Activation::gelu) a.pre = saved.tensors[0].view<T>();
      kernels::linear_forward<D>(queue, a);
    });
  }

  void backward(Queue queue, In in, const Saved& saved, const Tensor& dout, Gradients& d) const {
    on(queue, dout.dtype(), [&]<Device D, class T>() {
      Tensor dpre = dout;
      if (activation != Activation::none) {
        const Tensor& kept = activation == Activation::gelu ? saved.tensors[0] : saved.output;
        dpre = Tensor::empty(dout.shape(), dout.dtype(), queue);
        kernels::activation_backward<D, T>(queue, {activation, dout.view<const T>(), kept.view<const T>(), dpre.view<T>()});
      }
      const auto dy = dpre.view<const T>();
      if (const auto dx = d.to<T>(kX)) kernels::linear_input_gradient<D, T>(queue, {.dy = dy, .w = in[kWeight].view<const T>(), .dx = dx});
      kernels::linear_weight_gradient<D, T>(
          queue, {.dy = dy, .x = in[kX].view<const T>(), .dw = d.parameter(kWeight), .dbias = d.parameter(kBias)});
    });
  }
};

}  // namespace

Tensor linear(const Tensor& x, const Tensor& w, const Tensor& b, Activation activation) { return apply(LinearOp{activation}, {x, w, b}); }

}  // namespace lc
