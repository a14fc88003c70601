// LayerNorm(residual + dropout(x + bias)) and rows to unit length. Without residual, bias and dropout x itself is what the norm saw.
#include <fmt/format.h>

#include "engine/errors.h"
#include "engine/op.h"
#include "engine/ops.h"

namespace lc {
namespace {

[[noreturn]] void refuse(const char* what, const std::string& wanted, const Tensor& got) {
  throw ShapeError(fmt::format("norm: wanted {} {}, got {} {}", what, wanted, got.shape().text(), name_of(got.dtype())));
}

enum Input : int { kX, kResidual, kBias, kWeight, kShift };
enum Kept : int { kStatistics, kSum };

struct ResidualNormOp {
  static constexpr const char* name = "norm";
  float eps;
  Dropout dropout;
  PackingPtr packing;

  bool own_sum(In in) const { return in[kResidual] || in[kBias] || dropout.rate > 0; }
  kernels::PackingView packing_view() const { return packing ? packing->view() : kernels::PackingView{}; }

  void check_dropout(const Tensor& x) const {  // what the counter of numeric.h has room for
    if (!(dropout.rate >= 0 && dropout.rate < 1))
      throw ShapeError(fmt::format("norm: wanted a dropout rate in [0, 1), got {}", dropout.rate));
    if (dropout.rate == 0) return;
    if (!packing) throw ShapeError("norm: wanted a packing for dropout, got none");
    if (packing->tokens() != x.rows()) refuse("x with the packing's rows", fmt::format("({})", packing->tokens()), x);
    if (x.columns() > 1 << 16 || packing->longest() > 1 << 20 || dropout.site >= 1u << 23) {
      refuse("with dropout", "at most 2^16 columns, sequences of 2^20 and sites below 2^23", x);
    }
  }

  Plan plan(In in) const {
    const Tensor &x = in[kX], &residual = in[kResidual];
    require_storage_type(name, x);
    if (x.shape().rank() != 2 || x.columns() == 0) refuse("x", "(T, C)", x);
    if (residual && (residual.shape() != x.shape() || residual.dtype() != x.dtype())) {
      refuse("a residual", fmt::format("{} {}", x.shape().text(), name_of(x.dtype())), residual);
    }
    for (const int i : {kBias, kWeight, kShift}) {
      const bool absent = i == kBias && !in[i];
      if (!absent && (in[i].shape() != Shape{x.columns()} || in[i].dtype() != DType::f32))
        refuse("vectors", fmt::format("({}) f32", x.columns()), in[i]);
    }
    check_dropout(x);
    Plan p{.output = {x.shape(), x.dtype()},
           .saved = {{{x.rows(), 2}, DType::f32}},
           .backward_workspace = kernels::residual_norm_workspace(x.rows(), x.columns()),
           .unsaved_inputs = {kResidual, kBias, kShift},
           .flops = 9.0 * static_cast<double>(x.shape().count())};
    if (own_sum(in)) {
      p.saved.push_back(p.output);
      p.unsaved_inputs.push_back(kX);
    }
    return p;
  }

  void forward(Queue queue, In in, Tensor& out, Saved& saved) const {
    on(queue, out.dtype(), [&]<Device D, class T>() {
      kernels::ResidualNormForward<T> a;
      a.x = in[kX].view<const T>(), a.residual = in[kResidual].view<const T>(), a.bias = in[kBias] ? in[kBias].data<float>() : nullptr;
      a.norm = {in[kWeight].data<float>(), in[kShift].data<float>(), eps};
      a.dropout = dropout, a.packing = packing_view();
      if (own_sum(in)) a.sum = saved.tensors[kSum].view<T>();
      a.statistics = saved.data(kStatistics), a.y = out.view<T>();
      kernels::residual_norm_forward<D>(queue, a);
    });
  }

  void backward(Queue queue, In in, const Saved& saved, const Tensor& dout, Gradients& d) const {
    on(queue, dout.dtype(), [&]<Device D, class T>() {
      const Tensor& sum = saved.tensors.size() > kSum ? saved.tensors[kSum] : in[kX];
      kernels::ResidualNormBackward<T> a;
      a.dy = dout.view<const T>(), a.sum = sum.view<const T>(), a.statistics = saved.data(kStatistics);
      a.norm = {in[kWeight].data<float>(), nullptr, eps};
      a.dropout = dropout, a.packing = packing_view();
      a.dx = d.to<T>(kX), a.dresidual = d.to<T>(kResidual);
      a.dbias = d.parameter(kBias), a.dweight = d.parameter(kWeight), a.dshift = d.parameter(kShift);
      a.workspace = saved.work();
      kernels::residual_norm_backward<D>(queue, a);
    });
  }
};

struct L2NormalizeOp {
  static constexpr const char* name = "norm";

  Plan plan(In in) const {
    const Tensor& x = in[0];
    require_storage_type(name, x);
    if (x.shape().rank() != 2) refuse("x", "(T, P)", x);
    return {.output = {x.shape(), DType::f32},
            .saved = {{{x.rows()}, DType::f32}},
            .unsaved_inputs = {0},
            .saves_output = true,
            .flops = 3.0 * static_cast<double>(x.shape().count())};
  }
  void forward(Queue queue, In in, Tensor& out, Saved& saved) const {
    on(queue, in[0].dtype(), [&]<Device D, class T>() {
      kernels::l2_normalize_forward<D, T>(queue, {.x = in[0].view<const T>(), .inverse_norm = saved.data(0), .y = out.view<float>()});
    });
  }
  void backward(Queue queue, In in, const Saved& saved, const Tensor& dout, Gradients& d) const {
    on(queue, in[0].dtype(), [&]<Device D, class T>() {
      kernels::l2_normalize_backward<D, T>(
          queue, {.dy = dout.view<const float>(), .y = saved.output.view<const float>(), .inverse_norm = saved.data(0), .dx = d.to<T>(0)});
    });
  }
};

}  // namespace

Tensor residual_norm(const ResidualNorm& a) {
  return apply(ResidualNormOp{a.eps, a.dropout, a.packing}, {a.x, a.residual, a.bias, a.weight, a.shift});
}
Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& shift, float eps) {
  return residual_norm({.x = x, .residual = {}, .bias = {}, .weight = weight, .shift = shift, .eps = eps});
}
Tensor l2_normalize(const Tensor& x) { return apply(L2NormalizeOp{}, {x}); }

}  // namespace lc
