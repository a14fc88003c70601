// Elementwise work on rows: activation gradients, sums, conversion between storage types. All of it waits for memory.
#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/elementwise.cuh"

namespace lc::kernels {
namespace {

using cuda::for_elements;
using cuda::load;
using cuda::store;

template <class T>
struct SlopeTimes {
  ActivationBackward<T> a;
  template <int N>
  __device__ void at(std::int64_t row, std::int64_t c) const {
    float d[N], kept[N];
    load(d, a.dy.row(row) + c);
    if (a.activation != Activation::none) {  // kept is otherwise not read
      load(kept, a.kept.row(row) + c);
#pragma unroll
      for (int i = 0; i < N; ++i) d[i] = cuda::activation_gradient(a.activation, kept[i], d[i]);
    }
    store(d, a.dx.row(row) + c);
  }
};
template <class T>
struct Plus {
  Sum<T> a;
  template <int N>
  __device__ void at(std::int64_t row, std::int64_t c) const {
    float x[N], y[N];
    load(x, a.a.row(row) + c), load(y, a.b.row(row) + c);
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] += y[i];
    store(x, a.y.row(row) + c);
  }
};
template <class From, class To>
struct Copy {
  Convert<From, To> a;
  template <int N>
  __device__ void at(std::int64_t row, std::int64_t c) const {
    float x[N], y[N];
    load(x, a.x.row(row) + c);
    if (a.into == Into::add) {
      load(y, a.y.row(row) + c);
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] += y[i];
    }
    store(x, a.y.row(row) + c);
  }
};

template <class T>
void activation_backward_on(const Queue& queue, const ActivationBackward<T>& arguments) {
  SlopeTimes<T> f{arguments};
  if (f.a.activation == Activation::none) f.a.kept = f.a.dy;
  for_elements("activation_backward_kernel", queue, f, f.a.dy, f.a.kept, f.a.dx);
}
template <class T>
void sum_on(const Queue& queue, const Sum<T>& arguments) {
  Plus<T> f{arguments};
  for_elements("sum_kernel", queue, f, f.a.a, f.a.b, f.a.y);
}
template <class From, class To>
void convert_on(const Queue& queue, const Convert<From, To>& arguments) {
  Copy<From, To> f{arguments};
  for_elements("convert_kernel", queue, f, f.a.x, f.a.y);
}

}  // namespace

template <>
void activation_backward<Device::cuda, float>(Queue queue, const ActivationBackward<float>& a) {
  activation_backward_on(queue, a);
}
template <>
void activation_backward<Device::cuda, bf16>(Queue queue, const ActivationBackward<bf16>& a) {
  activation_backward_on(queue, a);
}
template <>
void sum<Device::cuda, float>(Queue queue, const Sum<float>& a) {
  sum_on(queue, a);
}
template <>
void sum<Device::cuda, bf16>(Queue queue, const Sum<bf16>& a) {
  sum_on(queue, a);
}
template <>
void convert<Device::cuda, float, float>(Queue queue, const Convert<float, float>& a) {
  convert_on(queue, a);
}
template <>
void convert<Device::cuda, float, bf16>(Queue queue, const Convert<float, bf16>& a) {
  convert_on(queue, a);
}
template <>
void convert<Device::cuda, bf16, float>(Queue queue, const Convert<bf16, float>& a) {
  convert_on(queue, a);
}
template <>
void convert<Device::cuda, bf16, bf16>(Queue queue, const Convert<bf16, bf16>& a) {
  convert_on(queue, a);
}

}  // namespace lc::kernels
