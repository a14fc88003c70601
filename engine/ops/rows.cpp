// Rows by index: CLS rows and masked rows out of a packing, and rows added back. Indices are trusted to lie within x.
#include <fmt/format.h>

#include "engine/errors.h"
#include "engine/op.h"
#include "engine/ops.h"

namespace lc {
namespace {

[[noreturn]] void refuse(const char* what, const std::string& wanted, const Tensor& got) {
  throw ShapeError(fmt::format("rows: wanted {} {}, got {} {}", what, wanted, got.shape().text(), name_of(got.dtype())));
}
void check(const Tensor& x, const Tensor& index) {
  require_storage_type("rows", x);
  if (x.shape().rank() != 2) refuse("x", "(T, C)", x);
  if (index.shape().rank() != 1 || index.dtype() != DType::i32) refuse("an index", "(n) i32", index);
}

struct Take {
  static constexpr const char* name = "rows";

  Plan plan(In in) const {
    check(in[0], in[1]);
    return {.output = {{in[1].columns(), in[0].columns()}, in[0].dtype()}, .unsaved_inputs = {0}};
  }
  void forward(Queue queue, In in, Tensor& out, Saved&) const {
    on(queue, out.dtype(), [&]<Device D, class T>() {
      kernels::rows_take<D, T>(queue, {.x = in[0].view<const T>(), .index = in[1].data<std::int32_t>(), .y = out.view<T>()});
    });
  }
  void backward(Queue queue, In in, const Saved&, const Tensor& dout, Gradients& d) const {
    on(queue, dout.dtype(), [&]<Device D, class T>() {
      kernels::rows_add<D, T>(queue, {.rows = dout.view<const T>(), .index = in[1].data<std::int32_t>(), .x = d.to<T>(0)});
    });
  }
};

enum Input : int { kX, kRows, kIndex };

struct AddRows {
  static constexpr const char* name = "rows";

  Plan plan(In in) const {
    const Tensor &x = in[kX], &rows = in[kRows], &index = in[kIndex];
    check(x, index);
    if (rows.shape() != Shape{index.columns(), x.columns()} || rows.dtype() != x.dtype()) {
      refuse("rows to add", fmt::format("({}, {}) {}", index.columns(), x.columns(), name_of(x.dtype())), rows);
    }
    return {.output = {x.shape(), x.dtype()}, .unsaved_inputs = {kX, kRows}, .flops = static_cast<double>(rows.shape().count())};
  }
  void forward(Queue queue, In in, Tensor& out, Saved&) const {
    on(queue, out.dtype(), [&]<Device D, class T>() {
      kernels::convert<D, T, T>(queue, {.x = in[kX].view<const T>(), .y = out.view<T>()});
      kernels::rows_add<D, T>(
          queue, {.rows = in[kRows].view<const T>(), .index = in[kIndex].data<std::int32_t>(), .x = {out.view<T>(), kernels::Into::add}});
    });
  }
  void backward(Queue queue, In in, const Saved&, const Tensor& dout, Gradients& d) const {
    on(queue, dout.dtype(), [&]<Device D, class T>() {
      if (const auto dx = d.to<T>(kX)) kernels::convert<D, T, T>(queue, {.x = dout.view<const T>(), .y = dx.to, .into = dx.into});
      const auto drows = d.to<T>(kRows);
      if (!drows) return;
      const Tensor taken = Tensor::empty({in[kIndex].columns(), dout.columns()}, dout.dtype(), queue);
      kernels::rows_take<D, T>(queue, {.x = dout.view<const T>(), .index = in[kIndex].data<std::int32_t>(), .y = taken.view<T>()});
      kernels::convert<D, T, T>(queue, {.x = taken.view<const T>(), .y = drows.to, .into = drows.into});
    });
  }
};

}  // namespace

Tensor rows_take(const Tensor& x, const Tensor& index) { return apply(Take{}, {x, index}); }
Tensor rows_add(const Tensor& x, const Tensor& rows, const Tensor& index) { return apply(AddRows{}, {x, rows, index}); }

}  // namespace lc
