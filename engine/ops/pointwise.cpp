// x + y. Activations are part of linear; their gradient is taken there.
#include <fmt/format.h>

#include "engine/errors.h"
#include "engine/op.h"
#include "engine/ops.h"

namespace lc {
namespace {

struct Add {
  static constexpr const char* name = "pointwise";

  Plan plan(In in) const {
    const Tensor &x = in[0], &y = in[1];
    require_storage_type(name, x);
    if (x.shape() != y.shape() || x.dtype() != y.dtype()) {
      throw ShapeError(fmt::format("pointwise: wanted two tensors of one shape and type, got {} {} and {} {}", x.shape().text(),
                                   name_of(x.dtype()), y.shape().text(), name_of(y.dtype())));
    }
    return {.output = {x.shape(), x.dtype()}, .unsaved_inputs = {0, 1}, .flops = static_cast<double>(x.shape().count())};
  }

  void forward(Queue queue, In in, Tensor& out, Saved&) const {
    on(queue, out.dtype(), [&]<Device D, class T>() {
      kernels::sum<D, T>(queue, {.a = in[0].view<const T>(), .b = in[1].view<const T>(), .y = out.view<T>()});
    });
  }

  void backward(Queue queue, In, const Saved&, const Tensor& dout, Gradients& d) const {
    on(queue, dout.dtype(), [&]<Device D, class T>() {
      for (const std::size_t i : {0, 1}) {
        if (const auto dx = d.to<T>(i)) kernels::convert<D, T, T>(queue, {.x = dout.view<const T>(), .y = dx.to, .into = dx.into});
      }
    });
  }
};

}  // namespace

Tensor add(const Tensor& x, const Tensor& y) { return apply(Add{}, {x, y}); }

}  // namespace lc
