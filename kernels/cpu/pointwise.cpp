// Elementwise work on rows: activation gradients, sums, conversion between storage types. All of it waits for memory.
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/simd.h"
#include "kernels/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/pointwise.cpp"
#include <hwy/foreach_target.h>
// after foreach_target
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lc::kernels::HWY_NAMESPACE {

// A stretch of one row: the same columns of every operand.
template <class T>
void activation_backward_run(Activation activation, const T* dy, const T* kept, T* dx, std::int64_t columns) {
  for_columns(columns, [&](std::int64_t c, std::int64_t n) HWY_ATTR {
    const V k = load(kept + c, n), g = load(dy + c, n);
    if (activation == Activation::relu) return store(relu_gradient(k, g), dx + c, n);
    store(activation == Activation::gelu ? hn::Mul(g, gelu_slope(k)) : g, dx + c, n);
  });
}
template <class T>
void sum_run(const T* a, const T* b, T* y, std::int64_t columns) {
  for_columns(columns, [&](std::int64_t c, std::int64_t n) HWY_ATTR { store(hn::Add(load(a + c, n), load(b + c, n)), y + c, n); });
}
template <class From, class To>
void convert_run(const From* x, To* y, std::int64_t columns, Into into) {
  for_columns(columns, [&](std::int64_t c, std::int64_t n) HWY_ATTR { store(load(x + c, n), y + c, n, into); });
}

void activation_backward_f32(Activation f, const float* dy, const float* kept, float* dx, std::int64_t n) {
  activation_backward_run(f, dy, kept, dx, n);
}
void activation_backward_bf16(Activation f, const bf16* dy, const bf16* kept, bf16* dx, std::int64_t n) {
  activation_backward_run(f, dy, kept, dx, n);
}
void sum_f32(const float* a, const float* b, float* y, std::int64_t n) { sum_run(a, b, y, n); }
void sum_bf16(const bf16* a, const bf16* b, bf16* y, std::int64_t n) { sum_run(a, b, y, n); }
void convert_f32_f32(const float* x, float* y, std::int64_t n, Into into) { convert_run(x, y, n, into); }
void convert_f32_bf16(const float* x, bf16* y, std::int64_t n, Into into) { convert_run(x, y, n, into); }
void convert_bf16_f32(const bf16* x, float* y, std::int64_t n, Into into) { convert_run(x, y, n, into); }
void convert_bf16_bf16(const bf16* x, bf16* y, std::int64_t n, Into into) { convert_run(x, y, n, into); }

}  // namespace lc::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lc::kernels {
namespace {
HWY_EXPORT(activation_backward_f32);
HWY_EXPORT(activation_backward_bf16);
HWY_EXPORT(sum_f32);
HWY_EXPORT(sum_bf16);
HWY_EXPORT(convert_f32_f32);
HWY_EXPORT(convert_f32_bf16);
HWY_EXPORT(convert_bf16_f32);
HWY_EXPORT(convert_bf16_bf16);

constexpr std::int64_t kElements = 1 << 14;  // per chunk

// f(row, first column, columns) over all elements; rows that follow each other without gaps are one long row.
template <class F, class... Operand>
void for_runs(F&& f, const Operand&... operand) {
  const std::int64_t rows = std::max({operand.rows...}), columns = std::max({operand.columns...});
  if (rows == 0 || columns == 0) return;
  if (rows == 1 || ((operand.stride == columns) && ...)) {
    parallel_for(rows * columns, kElements, [&](std::int64_t begin, std::int64_t end, std::int64_t) { f(0, begin, end - begin); });
    return;
  }
  parallel_for(rows, std::max<std::int64_t>(1, kElements / columns), [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    for (std::int64_t row = begin; row < end; ++row) f(row, 0, columns);
  });
}

template <class From, class To, class F>
void convert_with(F run, const Convert<From, To>& a) {
  for_runs([&](std::int64_t row, std::int64_t c, std::int64_t n) { run(a.x.row(row) + c, a.y.row(row) + c, n, a.into); }, a.x, a.y);
}
template <class T, class F>
void sum_with(F run, const Sum<T>& a) {
  for_runs([&](std::int64_t row, std::int64_t c, std::int64_t n) { run(a.a.row(row) + c, a.b.row(row) + c, a.y.row(row) + c, n); }, a.a,
           a.b, a.y);
}
template <class T, class F>
void activation_backward_with(F run, const ActivationBackward<T>& a) {
  const bool identity = a.activation == Activation::none;  // kept is then not read
  const Rows<const T>& kept = identity ? a.dy : a.kept;
  for_runs([&](std::int64_t row, std::int64_t c,
               std::int64_t n) { run(a.activation, a.dy.row(row) + c, kept.row(row) + c, a.dx.row(row) + c, n); },
           a.dy, kept, a.dx);
}
}  // namespace

template <>
void activation_backward<Device::cpu, float>(Queue, const ActivationBackward<float>& a) {
  activation_backward_with(HWY_DYNAMIC_DISPATCH(activation_backward_f32), a);
}
template <>
void activation_backward<Device::cpu, bf16>(Queue, const ActivationBackward<bf16>& a) {
  activation_backward_with(HWY_DYNAMIC_DISPATCH(activation_backward_bf16), a);
}
template <>
void sum<Device::cpu, float>(Queue, const Sum<float>& a) {
  sum_with(HWY_DYNAMIC_DISPATCH(sum_f32), a);
}
template <>
void sum<Device::cpu, bf16>(Queue, const Sum<bf16>& a) {
  sum_with(HWY_DYNAMIC_DISPATCH(sum_bf16), a);
}
template <>
void convert<Device::cpu, float, float>(Queue, const Convert<float, float>& a) {
  convert_with(HWY_DYNAMIC_DISPATCH(convert_f32_f32), a);
}
template <>
void convert<Device::cpu, float, bf16>(Queue, const Convert<float, bf16>& a) {
  convert_with(HWY_DYNAMIC_DISPATCH(convert_f32_bf16), a);
}
template <>
void convert<Device::cpu, bf16, float>(Queue, const Convert<bf16, float>& a) {
  convert_with(HWY_DYNAMIC_DISPATCH(convert_bf16_f32), a);
}
template <>
void convert<Device::cpu, bf16, bf16>(Queue, const Convert<bf16, bf16>& a) {
  convert_with(HWY_DYNAMIC_DISPATCH(convert_bf16_bf16), a);
}

}  // namespace lc::kernels
#endif
