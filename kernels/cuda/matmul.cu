// Linear layers: through cuBLASLt where the build has it and the shapes suit it, else by product.cuh, whose epilogue adds the bias,
// activates and rounds. The depth of a weight gradient is cut into parts, whose sums are added in order.
#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/matmul_cublas.h"
#include "kernels/cuda/product.cuh"
#include "kernels/cuda/row_slots.cuh"
#include "kernels/cuda/scratch.h"

namespace lc::kernels {
namespace {

using namespace cuda;

// Two neighbouring numbers of a row, of which only the first may exist.
template <class T>
__device__ __forceinline__ void put_pair(const Rows<T>& to, std::int64_t m, std::int64_t n, const float (&v)[2], bool together) {
  T* const at = to.row(m) + n;
  if (together && n + 1 < to.columns) return cuda::store(v, at);
  at[0] = from_float<T>(v[0]);
  if (n + 1 < to.columns) at[1] = from_float<T>(v[1]);
}

template <class T>
struct LinearEpilogue {  // y = activation(s + bias), pre = s + bias
  LinearForward<T> a;
  bool together;  // pairs are aligned
  __device__ void operator()(const Fragment<8>& s, std::int64_t row, std::int64_t column) const {
    for_pairs(s, row, column, [&](std::int64_t m, std::int64_t n, float(&v)[2]) {
      if (m >= a.y.rows || n >= a.y.columns) return;
      if (a.bias) v[0] += a.bias[n], v[1] += n + 1 < a.y.columns ? a.bias[n + 1] : 0.0f;
      if (a.pre.data) put_pair(a.pre, m, n, v, together);
      v[0] = activate(a.activation, v[0]), v[1] = activate(a.activation, v[1]);
      put_pair(a.y, m, n, v, together);
    });
  }
};

template <class T>
struct GradientEpilogue {  // to = or += s, rounded once
  Rows<T> to;
  Into into;
  bool together;
  __device__ void operator()(const Fragment<8>& s, std::int64_t row, std::int64_t column) const {
    for_pairs(s, row, column, [&](std::int64_t m, std::int64_t n, float(&v)[2]) {
      if (m >= to.rows || n >= to.columns) return;
      if (into == Into::add) {
        const T* const at = to.row(m) + n;
        v[0] += to_float(at[0]);
        if (n + 1 < to.columns) v[1] += to_float(at[1]);
      }
      put_pair(to, m, n, v, together);
    });
  }
};

struct PartEpilogue {  // a part of the depth on its own
  float* parts;        // (parts, m, n)
  std::int64_t rows, columns;
  __device__ void operator()(const Fragment<8>& s, std::int64_t row, std::int64_t column) const {
    float* const part = parts + static_cast<std::int64_t>(blockIdx.z) * rows * columns;
    for_pairs(s, row, column, [&](std::int64_t m, std::int64_t n, float(&v)[2]) {
      if (m >= rows) return;
      if (n < columns) part[m * columns + n] = v[0];
      if (n + 1 < columns) part[m * columns + n + 1] = v[1];
    });
  }
};

constexpr int kSumThreads = 256, kSumColumns = 32;
constexpr std::int64_t kBiasRows = 256;  // of one partial sum of dbias

// add_parts_kernel: to[i] += Σ over the parts of parts[part][i], in order.      grid (count / 256)   block 256   shared none
__global__ void __launch_bounds__(kSumThreads) add_parts_kernel(const float* parts, std::int64_t count, int n, float* to) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kSumThreads + threadIdx.x;
  if (i >= count) return;
  float sum = parts[i];
  for (int part = 1; part < n; ++part) sum += parts[part * count + i];
  to[i] += sum;
}

// column_sums_kernel: the sums of 32 columns over a chunk of rows; a warp sums every eighth row.
// in   x (rows, columns)      out  sums (chunks, columns)
// grid (columns / 32, chunks)   block 256   shared 256 floats
template <class T>
__global__ void __launch_bounds__(kSumThreads) column_sums_kernel(Rows<const T> x, float* sums) {
  constexpr int kWarps = kSumThreads / kWarpSize;
  float* const shared = ptx::dynamic_shared<float>();
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kSumColumns + lane_of_warp();
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.y) * kBiasRows;
  const std::int64_t end = first + kBiasRows < x.rows ? first + kBiasRows : x.rows;
  float sum = 0;
  for (std::int64_t row = first + warp_of_block(); column < x.columns && row < end; row += kWarps) sum += to_float(x.row(row)[column]);
  shared[threadIdx.x] = sum;
  __syncthreads();
  if (warp_of_block() != 0 || column >= x.columns) return;
  for (int w = 1; w < kWarps; ++w) sum += shared[w * kWarpSize + lane_of_warp()];
  sums[static_cast<std::int64_t>(blockIdx.y) * x.columns + column] = sum;
}

template <class T>
struct Activate {  // y = activation(s), of a product by the library
  Rows<T> s, y;
  Activation activation;
  template <int N>
  __device__ void at(std::int64_t row, std::int64_t c) const {
    float v[N];
    load(v, s.row(row) + c);
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = activate(activation, v[i]);
    store(v, y.row(row) + c);
  }
};

template <class T>
void forward(const Queue& queue, const LinearForward<T>& a) {
  const Rows<T> first = a.pre.data ? a.pre : a.y;
  const bool gelu = a.activation == Activation::gelu;  // the library's is the tanh form
  const bool rounded = a.bias && dtype_of<T> != DType::f32;
  const Scratch<T> bias(queue, rounded ? a.y.columns : 0);
  if (rounded) {
    convert<Device::cuda, float, T>(queue, {{a.bias, 1, a.y.columns, a.y.columns}, {bias.get(), 1, a.y.columns, a.y.columns}, Into::write});
  }
  const bool done = cublas_product(queue, {.in = dtype_of<T>,
                                           .out = dtype_of<T>,
                                           .a = a.x.data,
                                           .b = a.w.data,
                                           .c = first.data,
                                           .m = a.y.rows,
                                           .n = a.y.columns,
                                           .k = a.x.columns,
                                           .a_stride = a.x.stride,
                                           .b_stride = a.w.stride,
                                           .c_stride = first.stride,
                                           .turn_b = Turn::transpose,
                                           .bias = rounded ? static_cast<const void*>(bias.get()) : a.bias,
                                           .activation = gelu || a.pre.data ? Activation::none : a.activation});
  if (!done) {
    const LinearEpilogue<T> epilogue{a, fits(a.y, 2) && (!a.pre.data || fits(a.pre, 2))};
    return product<Stored::rows, Stored::rows>("linear_forward_kernel", queue, a.x, a.w, {a.y.rows, a.y.columns, a.x.columns}, 1, epilogue);
  }
  if (!gelu && !a.pre.data) return;
  Activate<T> rest{first, a.y, a.activation};
  for_elements("activation_kernel", queue, rest, rest.s, rest.y);
}

template <class T>
void input_gradient(const Queue& queue, const LinearInputGradient<T>& a) {
  const Rows<T>& dx = a.dx.to;
  const bool done = cublas_product(queue, {.in = dtype_of<T>,
                                           .out = dtype_of<T>,
                                           .a = a.dy.data,
                                           .b = a.w.data,
                                           .c = dx.data,
                                           .m = dx.rows,
                                           .n = dx.columns,
                                           .k = a.dy.columns,
                                           .a_stride = a.dy.stride,
                                           .b_stride = a.w.stride,
                                           .c_stride = dx.stride,
                                           .into = a.dx.into});
  if (done) return;
  product<Stored::rows, Stored::columns>("linear_input_gradient_kernel", queue, a.dy, a.w, {dx.rows, dx.columns, a.dy.columns}, 1,
                                         GradientEpilogue<T>{dx, a.dx.into, fits(dx, 2)});
}

template <class T>
void weight_gradient(const Queue& queue, const LinearWeightGradient<T>& a) {
  const std::int64_t m = a.dy.columns, n = a.x.columns, k = a.dy.rows;
  if (k == 0) return;
  const bool done = cublas_product(queue, {.in = dtype_of<T>,
                                           .out = DType::f32,
                                           .a = a.dy.data,
                                           .b = a.x.data,
                                           .c = a.dw,
                                           .m = m,
                                           .n = n,
                                           .k = k,
                                           .a_stride = a.dy.stride,
                                           .b_stride = a.x.stride,
                                           .c_stride = n,
                                           .turn_a = Turn::transpose,
                                           .into = Into::add});
  if (done) return;
  constexpr std::int64_t kTokens = 512;  // of a part, at least
  const std::int64_t tile = product_form(a.dy, a.x).tile, tiles = ceil_div(m, tile) * ceil_div(n, tile);
  const std::int64_t parts = std::clamp<std::int64_t>(2 * multiprocessors(queue) / tiles, 1, ceil_div(k, kTokens));
  const Scratch<float> sums(queue, parts * m * n);
  product<Stored::columns, Stored::columns>("linear_weight_gradient_kernel", queue, a.dy, a.x, {m, n, k}, parts,
                                            PartEpilogue{sums.get(), m, n});
  const Grid grid{dim3(static_cast<unsigned>(ceil_div(m * n, kSumThreads))), dim3(kSumThreads)};
  launch("add_parts_kernel", add_parts_kernel, grid, queue, sums.get(), m * n, static_cast<int>(parts), a.dw);
}

template <class T>
void bias_gradient(const Queue& queue, const LinearWeightGradient<T>& a) {
  const std::int64_t columns = a.dy.columns, chunks = ceil_div(a.dy.rows, kBiasRows);
  if (chunks == 0) return;
  const Scratch<float> sums(queue, chunks * columns);
  const Grid grid{dim3(static_cast<unsigned>(ceil_div(columns, kSumColumns)), static_cast<unsigned>(chunks)), dim3(kSumThreads),
                  kSumThreads * sizeof(float)};
  launch("column_sums_kernel", column_sums_kernel<T>, grid, queue, a.dy, sums.get());
  add_partials(queue, {sums.get(), chunks, columns, 1}, {&a.dbias, 1});
}

template <class T>
void parameter_gradients(const Queue& queue, const LinearWeightGradient<T>& a) {
  if (a.dw) weight_gradient(queue, a);
  if (a.dbias) bias_gradient(queue, a);
}

}  // namespace

}  // namespace lc::kernels

namespace lc::cuda {

template <class T>
void float_product(const Queue& queue, const FloatProduct<T>& p) {
  const std::int64_t k = p.b.rows;
  const bool done = cublas_product(queue, {.in = dtype_of<T>,
                                           .out = DType::f32,
                                           .a = p.a.data,
                                           .b = p.b.data,
                                           .c = p.c.data,
                                           .m = p.c.rows,
                                           .n = p.c.columns,
                                           .k = k,
                                           .a_stride = p.a.stride,
                                           .b_stride = p.b.stride,
                                           .c_stride = p.c.stride,
                                           .turn_a = p.a_transposed ? Turn::transpose : Turn::none,
                                           .into = p.into});
  if (done) return;
  const Extent extent{p.c.rows, p.c.columns, k};
  const kernels::GradientEpilogue<float> epilogue{p.c, p.into, fits(p.c, 2)};
  if (p.a_transposed)
    product<Stored::columns, Stored::columns>("float_product_kernel", queue, p.a, p.b, extent, 1, epilogue);
  else
    product<Stored::rows, Stored::columns>("float_product_kernel", queue, p.a, p.b, extent, 1, epilogue);
}
template void float_product(const Queue&, const FloatProduct<float>&);
template void float_product(const Queue&, const FloatProduct<bf16>&);

}  // namespace lc::cuda

namespace lc::kernels {

template <>
void linear_forward<Device::cuda, float>(Queue queue, const LinearForward<float>& a) {
  forward(queue, a);
}
template <>
void linear_forward<Device::cuda, bf16>(Queue queue, const LinearForward<bf16>& a) {
  forward(queue, a);
}
template <>
void linear_input_gradient<Device::cuda, float>(Queue queue, const LinearInputGradient<float>& a) {
  input_gradient(queue, a);
}
template <>
void linear_input_gradient<Device::cuda, bf16>(Queue queue, const LinearInputGradient<bf16>& a) {
  input_gradient(queue, a);
}
template <>
void linear_weight_gradient<Device::cuda, float>(Queue queue, const LinearWeightGradient<float>& a) {
  parameter_gradients(queue, a);
}
template <>
void linear_weight_gradient<Device::cuda, bf16>(Queue queue, const LinearWeightGradient<bf16>& a) {
  parameter_gradients(queue, a);
}

}  // namespace lc::kernels
