// matching_head: two logits per pair from one row of the text tower, softmax cross-entropy summed over the pairs.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/kernels.h"

namespace lc::kernels {
namespace {

constexpr std::int64_t kPairs = 16, kColumns = 64, kRows = 256;  // per chunk

double log_sum(const float* logits) {
  const double a = logits[0], b = logits[1];
  return std::max(a, b) + std::log1p(std::exp(-std::abs(a - b)));  // NaN if one of them is, which the greater may not be
}

template <class T>
void forward(const MatchingHeadForward<T>& f) {
  parallel_for(f.pairs, kPairs, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    for (std::int64_t i = begin; i < end; ++i) {
      const T* x = f.x.row(f.rows[i]);
      for (int k = 0; k < 2; ++k) {
        float sum = 0;
        for (std::int64_t c = 0; c < f.x.columns; ++c) sum += to_float(x[c]) * to_float(f.weight.row(k)[c]);
        f.logits[2 * i + k] = sum + f.bias[k];
      }
    }
  });
  if (f.loss == nullptr) return;
  double loss = 0;
  for (std::int64_t i = 0; f.labels != nullptr && i < f.pairs; ++i) {
    loss += log_sum(f.logits + 2 * i) - static_cast<double>(f.logits[2 * i + f.labels[i]]);
  }
  f.loss[0] = static_cast<float>(loss);
}

template <class T>
void input_gradient(const MatchingHeadBackward<T>& b, const std::vector<float>& dlogits) {
  if (b.dx.into == Into::write) {
    parallel_for(b.dx.to.rows, kRows, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
      for (std::int64_t i = begin; i < end; ++i) std::fill_n(b.dx.to.row(i), b.dx.to.columns, T{});
    });
  }
  parallel_for(b.pairs, kPairs, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    for (std::int64_t i = begin; i < end; ++i) {
      const float* d = dlogits.data() + 2 * i;
      T* dx = b.dx.to.row(b.rows[i]);
      for (std::int64_t c = 0; c < b.x.columns; ++c) {
        dx[c] = from_float<T>(to_float(dx[c]) + d[0] * to_float(b.weight.row(0)[c]) + d[1] * to_float(b.weight.row(1)[c]));
      }
    }
  });
}

template <class T>
void backward(const MatchingHeadBackward<T>& b) {
  std::vector<float> dlogits(static_cast<std::size_t>(2 * b.pairs));
  for (std::int64_t i = 0; i < b.pairs; ++i) {
    for (int k = 0; k < 2; ++k) {
      const double p = std::exp(static_cast<double>(b.logits[2 * i + k]) - log_sum(b.logits + 2 * i));
      dlogits[static_cast<std::size_t>(2 * i + k)] = static_cast<float>((p - (b.labels[i] == k ? 1 : 0)) * static_cast<double>(b.dloss[0]));
    }
  }
  for (std::size_t i = 0; b.dbias != nullptr && i < dlogits.size(); ++i) b.dbias[i % 2] += dlogits[i];
  if (b.dx) input_gradient(b, dlogits);
  if (b.dweight == nullptr) return;
  const std::int64_t columns = b.x.columns;
  parallel_for(columns, kColumns, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    for (std::int64_t i = 0; i < b.pairs; ++i) {
      const T* x = b.x.row(b.rows[i]);
      for (int k = 0; k < 2; ++k) {
        const float d = dlogits[static_cast<std::size_t>(2 * i + k)];
        for (std::int64_t c = begin; c < end; ++c) b.dweight[k * columns + c] += d * to_float(x[c]);
      }
    }
  });
}

}  // namespace

template <>
void matching_head_forward<Device::cpu, float>(Queue, const MatchingHeadForward<float>& f) {
  forward(f);
}
template <>
void matching_head_forward<Device::cpu, bf16>(Queue, const MatchingHeadForward<bf16>& f) {
  forward(f);
}
template <>
void matching_head_backward<Device::cpu, float>(Queue, const MatchingHeadBackward<float>& b) {
  backward(b);
}
template <>
void matching_head_backward<Device::cpu, bf16>(Queue, const MatchingHeadBackward<bf16>& b) {
  backward(b);
}

}  // namespace lc::kernels
