// Linear layers through oneDNN's sgemm, one thread per product over fixed tiles: needs no code per shape, and the number of threads
// changes no bit. bf16 is widened tile by tile, except where the CPU has tile instructions (matmul_amx.cpp).
#include <cstring>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/matmul_amx.h"
#include "kernels/cpu/onednn.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/simd.h"
#include "kernels/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/matmul.cpp"
#include <hwy/foreach_target.h>
// after foreach_target
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lc::kernels::HWY_NAMESPACE {

// y = activation(product + bias) of one tile, rounded to storage while it is in cache. The product may lie in y or pre itself.
template <class T>
void finish_tile(const Rows<const float>& product, const float* bias, Activation activation, const Rows<T>& y, const Rows<T>& pre) {
  for (std::int64_t i = 0; i < product.rows; ++i) {
    const float* p = product.row(i);
    T *to = y.row(i), *kept = pre.data ? pre.row(i) : nullptr;
    for_columns(product.columns, [&](std::int64_t c, std::int64_t n) HWY_ATTR {
      V v = load(p + c, n);
      if (bias) v = hn::Add(v, load(bias + c, n));
      if (kept) store(v, kept + c, n);
      if (activation == Activation::relu) v = relu(v);
      if (activation == Activation::gelu) v = gelu(v);
      store(v, to + c, n);
    });
  }
}
void finish_f32(const Rows<const float>& p, const float* bias, Activation f, const Rows<float>& y, const Rows<float>& pre) {
  finish_tile(p, bias, f, y, pre);
}
void finish_bf16(const Rows<const float>& p, const float* bias, Activation f, const Rows<bf16>& y, const Rows<bf16>& pre) {
  finish_tile(p, bias, f, y, pre);
}

void widen(const Rows<const bf16>& from, const Rows<float>& to) {
  for (std::int64_t i = 0; i < from.rows; ++i) {
    for_columns(from.columns, [&](std::int64_t c, std::int64_t n) HWY_ATTR { store(load(from.row(i) + c, n), to.row(i) + c, n); });
  }
}
void round_into(const Rows<const float>& from, const Rows<bf16>& to, Into into) {
  for (std::int64_t i = 0; i < from.rows; ++i) {
    for_columns(from.columns, [&](std::int64_t c, std::int64_t n) HWY_ATTR { store(load(from.row(i) + c, n), to.row(i) + c, n, into); });
  }
}

// to[c] = Σ over the rows, in order.
template <class T>
void sum_rows(const Rows<const T>& x, float* to) {
  std::memset(to, 0, static_cast<std::size_t>(x.columns) * sizeof(float));
  for (std::int64_t i = 0; i < x.rows; ++i) {
    for_columns(x.columns, [&](std::int64_t c, std::int64_t n) HWY_ATTR { store(load(x.row(i) + c, n), to + c, n, Into::add); });
  }
}
void sum_rows_f32(const Rows<const float>& x, float* to) { sum_rows(x, to); }
void sum_rows_bf16(const Rows<const bf16>& x, float* to) { sum_rows(x, to); }

}  // namespace lc::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lc::kernels {
namespace {
HWY_EXPORT(finish_f32);
HWY_EXPORT(finish_bf16);
HWY_EXPORT(widen);
HWY_EXPORT(round_into);
HWY_EXPORT(sum_rows_f32);
HWY_EXPORT(sum_rows_bf16);

// Tiles of the result; a product of 128 rows and its result stay in L2.
constexpr std::int64_t kRowTile = 128, kColumnTile = 1024;
constexpr std::int64_t kWeightRowTile = 64, kWeightColumnTile = 1024;
constexpr std::int64_t kTokens = 1024;        // of one step of the weight gradient: read by every tile while in cache
constexpr std::int64_t kBiasRows = 128;       // per partial sum of dbias
constexpr std::int64_t kTransposeRows = 512;  // from here on it pays to transpose the weights once

struct WeightRoom;
struct LeftRoom;
struct RightRoom;
struct ResultRoom;
struct BiasRoom;

template <class T>
Rows<T> part(const Rows<T>& m, std::int64_t r0, std::int64_t r1, std::int64_t c0, std::int64_t c1) {
  return {m.row(r0) + c0, r1 - r0, c1 - c0, m.stride};
}
template <class T>
Rows<T> part_rows(const Rows<T>& m, std::int64_t r0, std::int64_t r1) {
  return part(m, r0, r1, 0, m.columns);
}

// The float form of a matrix: itself, or widened into the room of this purpose.
template <class Purpose>
Rows<const float> as_float(const Rows<const float>& m) {
  return m;
}
template <class Purpose>
Rows<const float> as_float(const Rows<const bf16>& m) {
  const Rows<float> wide{scratch<Purpose>(static_cast<std::size_t>(m.rows * m.columns)), m.rows, m.columns, m.columns};
  HWY_DYNAMIC_DISPATCH(widen)(m, wide);
  return wide;
}

// As as_float, by all threads.
template <class Purpose>
Rows<const float> as_float_parallel(const Rows<const float>& m) {
  return m;
}
template <class Purpose>
Rows<const float> as_float_parallel(const Rows<const bf16>& m) {
  const Rows<float> wide{scratch<Purpose>(static_cast<std::size_t>(m.rows * m.columns)), m.rows, m.columns, m.columns};
  const auto run = HWY_DYNAMIC_DISPATCH(widen);
  parallel_for(m.rows, 64,
               [&](std::int64_t begin, std::int64_t end, std::int64_t) { run(part_rows(m, begin, end), part_rows(wide, begin, end)); });
  return wide;
}

// wᵀ (K, N) in float.
template <class T>
Rows<const float> transposed(const Rows<const T>& w) {
  const Rows<float> to{scratch<WeightRoom>(static_cast<std::size_t>(w.rows * w.columns)), w.columns, w.rows, w.rows};
  parallel_for(w.rows, 16, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    for (std::int64_t k = 0; k < w.columns; ++k) {
      for (std::int64_t n = begin; n < end; ++n) to.row(k)[n] = to_float(w.row(n)[k]);
    }
  });
  return to;
}

// f(row, row end, column, column end) for every tile of a (rows, columns) result.
template <class F>
void for_tiles(std::int64_t rows, std::int64_t columns, std::int64_t row_tile, std::int64_t column_tile, F&& f) {
  const std::int64_t across = chunks_of(columns, column_tile);
  parallel_for(chunks_of(rows, row_tile) * across, 1, [&](std::int64_t tile, std::int64_t, std::int64_t) {
    const std::int64_t r = tile / across * row_tile, c = tile % across * column_tile;
    f(r, std::min(rows, r + row_tile), c, std::min(columns, c + column_tile));
  });
}

enum class Order : char { plain = 'N', transposed = 'T' };

// c = a b, or c += a b, by one thread.
void product(const Rows<const float>& a, Order order_a, const Rows<const float>& b, Order order_b, const Rows<float>& c, Into into) {
  const OneThread one;
  const std::int64_t inner = order_a == Order::plain ? a.columns : a.rows;
  require_onednn(dnnl_sgemm(static_cast<char>(order_a), static_cast<char>(order_b), c.rows, c.columns, inner, 1.0f, a.data, a.stride,
                            b.data, b.stride, into == Into::add ? 1.0f : 0.0f, c.data, c.stride));
}

Rows<float> result_room(std::int64_t rows, std::int64_t columns) {
  return {scratch<ResultRoom>(static_cast<std::size_t>(rows * columns)), rows, columns, columns};
}
Rows<float> result_in(const Rows<float>& place) { return place; }
Rows<float> result_in(const Rows<bf16>& place) { return result_room(place.rows, place.columns); }

template <class T, class F>
void forward_with(F finish, const LinearForward<T>& a) {
  const bool transpose = a.y.rows >= kTransposeRows || dtype_of<T> != DType::f32;
  const Rows<const float> wt = transpose ? transposed(a.w) : Rows<const float>{};
  for_tiles(a.y.rows, a.y.columns, kRowTile, kColumnTile, [&](std::int64_t r0, std::int64_t r1, std::int64_t c0, std::int64_t c1) {
    const Rows<T> y = part(a.y, r0, r1, c0, c1), pre = a.pre.data ? part(a.pre, r0, r1, c0, c1) : Rows<T>{};
    const Rows<float> result = result_in(y);
    const auto x = as_float<LeftRoom>(part_rows(a.x, r0, r1));
    if (transpose)
      product(x, Order::plain, part(wt, 0, wt.rows, c0, c1), Order::plain, result, Into::write);
    else if constexpr (dtype_of<T> == DType::f32)
      product(x, Order::plain, part_rows(a.w, c0, c1), Order::transposed, result, Into::write);
    const bool done = dtype_of<T> == DType::f32 && !a.bias && a.activation == Activation::none && !pre.data;
    if (!done) finish(result, a.bias ? a.bias + c0 : nullptr, a.activation, y, pre);
  });
}

template <class T>
void input_gradient(const LinearInputGradient<T>& a) {
  const auto w = as_float_parallel<WeightRoom>(a.w);
  const Rows<T>& dx = a.dx.to;
  for_tiles(dx.rows, dx.columns, kRowTile, kColumnTile, [&](std::int64_t r0, std::int64_t r1, std::int64_t c0, std::int64_t c1) {
    const auto dy = as_float<LeftRoom>(part_rows(a.dy, r0, r1));
    const auto w_part = part(w, 0, w.rows, c0, c1);
    if constexpr (dtype_of<T> == DType::f32) {
      product(dy, Order::plain, w_part, Order::plain, part(dx, r0, r1, c0, c1), a.dx.into);
    } else {
      const Rows<float> result = result_room(r1 - r0, c1 - c0);
      product(dy, Order::plain, w_part, Order::plain, result, Into::write);
      HWY_DYNAMIC_DISPATCH(round_into)(result, part(dx, r0, r1, c0, c1), a.dx.into);
    }
  });
}

template <class T>
void weight_gradient(const LinearWeightGradient<T>& a) {
  const Rows<float> dw{a.dw, a.dy.columns, a.x.columns, a.x.columns};
  const std::int64_t tokens = a.dy.rows;
  for (std::int64_t t = 0; t < tokens; t += kTokens) {
    const std::int64_t end = std::min(tokens, t + kTokens);
    const auto dy = as_float_parallel<LeftRoom>(part_rows(a.dy, t, end)), x = as_float_parallel<RightRoom>(part_rows(a.x, t, end));
    for_tiles(dw.rows, dw.columns, kWeightRowTile, kWeightColumnTile,
              [&](std::int64_t r0, std::int64_t r1, std::int64_t c0, std::int64_t c1) {
                product(part(dy, 0, dy.rows, r0, r1), Order::transposed, part(x, 0, x.rows, c0, c1), Order::plain, part(dw, r0, r1, c0, c1),
                        Into::add);
              });
  }
}

template <class T, class F>
void bias_gradient(F sum_rows_of, const LinearWeightGradient<T>& a) {
  const std::int64_t columns = a.dy.columns, chunks = chunks_of(a.dy.rows, kBiasRows);
  float* partial = scratch<BiasRoom>(static_cast<std::size_t>(chunks * columns));
  parallel_for(a.dy.rows, kBiasRows, [&](std::int64_t begin, std::int64_t end, std::int64_t chunk) {
    sum_rows_of(part_rows(a.dy, begin, end), partial + chunk * columns);
  });
  for (std::int64_t n = 0; n < columns; ++n) {
    float total = 0;
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) total += partial[chunk * columns + n];
    a.dbias[n] += total;
  }
}
}  // namespace

template <>
void linear_forward<Device::cpu, float>(Queue, const LinearForward<float>& a) {
  forward_with(HWY_DYNAMIC_DISPATCH(finish_f32), a);
}
template <>
void linear_forward<Device::cpu, bf16>(Queue, const LinearForward<bf16>& a) {
  const auto finish = HWY_DYNAMIC_DISPATCH(finish_bf16);
  if (cpu_has_amx()) return linear_forward_amx(a, finish);
  forward_with(finish, a);
}
template <>
void linear_input_gradient<Device::cpu, float>(Queue, const LinearInputGradient<float>& a) {
  input_gradient(a);
}
template <>
void linear_input_gradient<Device::cpu, bf16>(Queue, const LinearInputGradient<bf16>& a) {
  if (cpu_has_amx()) return linear_input_gradient_amx(a, HWY_DYNAMIC_DISPATCH(round_into));
  input_gradient(a);
}
template <>
void linear_weight_gradient<Device::cpu, float>(Queue, const LinearWeightGradient<float>& a) {
  if (a.dw) weight_gradient(a);
  if (a.dbias) bias_gradient(HWY_DYNAMIC_DISPATCH(sum_rows_f32), a);
}
template <>
void linear_weight_gradient<Device::cpu, bf16>(Queue, const LinearWeightGradient<bf16>& a) {
  if (a.dw && cpu_has_amx())
    linear_weight_gradient_amx(a);
  else if (a.dw)
    weight_gradient(a);
  if (a.dbias) bias_gradient(HWY_DYNAMIC_DISPATCH(sum_rows_bf16), a);
}

}  // namespace lc::kernels
#endif
