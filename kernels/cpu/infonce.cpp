// infonce: symmetric InfoNCE, 64 × 64 scores at a time; the gradients compute each tile of scores again, once for a and once for b.
// Who counts as what is folded into the scores: a pair outside the denominator is −∞, a weight of a column is added as its logarithm.
#include <hwy/aligned_allocator.h>

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/loss_tiles.h"
#include "kernels/cpu/scratch.h"

namespace lc::kernels {
namespace {

using namespace loss_tiles;

constexpr std::int64_t kTile = 64;  // rows and columns

// One direction: every row of `from` chooses among the rows of `to`.
enum class Direction : std::uint8_t { a_to_b, b_to_a };

template <class T>
struct Side {
  Rows<const T> from, to;
  float scale = 1;
  InfoNceGroups groups;
  Direction direction = Direction::a_to_b;
};

struct Scratch {
  explicit Scratch(std::int64_t columns)
      : from(aligned_floats(kTile * columns)), to(aligned_floats(kTile * columns)), gradient(aligned_floats(kTile * columns)) {}
  hwy::AlignedFreeUniquePtr<float[]> from, to, gradient;
  alignas(64) float dots[kTile * kTile], own[kTile * kTile], other[kTile * kTile], bias[kTile], zeros[kTile] = {};
};

bool in_denominator(const InfoNceGroups& g, std::int64_t i, std::int64_t j) {
  const std::int32_t row = g.group[i], column = g.group[j];
  if (row == column) return i == j || g.same != SamePairs::ignore;
  return g.unrelated == nullptr || g.unrelated[std::int64_t{row} * g.groups + column] != 0;
}

// The share of row i's target mass on column j; the same in both directions.
float target(const InfoNceGroups& g, std::int64_t i, std::int64_t j) {
  if (g.same == SamePairs::ignore) return i == j ? 1.0f : 0.0f;
  return g.group[i] == g.group[j] ? 1.0f / static_cast<float>(g.size[g.group[i]]) : 0.0f;
}

// Logarithm of the weight with which pair j stands in the denominator of a→b.
float log_weight(const InfoNceGroups& g, std::int64_t j) {
  return g.same == SamePairs::merge ? -std::log(static_cast<float>(g.size[g.group[j]])) : 0.0f;
}

// dots (rows, kTile) = from · toᵀ
void dots_of(FloatRows from, std::int64_t rows, FloatRows to, std::int64_t count, std::int64_t columns, float* dots) {
  multiply({.rows = rows,
            .columns = count,
            .inner = columns,
            .left = from.data,
            .left_stride = from.stride,
            .right = to.data,
            .right_stride = to.stride,
            .out = dots,
            .out_stride = kTile,
            .transpose = Transpose::right});
}

// Rows [begin, end): their log-sum-exp, and per row the cross-entropy.
template <class T>
void forward_rows(const Side<T>& side, std::int64_t begin, std::int64_t end, float* lse, double* losses) {
  const std::int64_t n = side.to.rows, columns = side.to.columns;
  Scratch scratch(columns);
  const FloatRows from = as_float(side.from, begin, end, scratch.from.get());
  LogSumExp sums[kTile];
  double wanted[kTile] = {};
  for (std::int64_t first = 0; first < n; first += kTile) {
    const std::int64_t count = std::min(kTile, n - first);
    const FloatRows to = as_float(side.to, first, first + count, scratch.to.get());
    dots_of(from, end - begin, to, count, columns, scratch.dots);
    std::fill(scratch.bias, scratch.bias + kTile, 0.0f);
    for (std::int64_t j = 0; side.direction == Direction::a_to_b && j < count; ++j) scratch.bias[j] = log_weight(side.groups, first + j);
    for (std::int64_t i = begin; i < end; ++i) {
      float* row = scratch.dots + (i - begin) * kTile;
      for (std::int64_t j = 0; j < count; ++j) {
        const float score = side.scale * row[j], share = target(side.groups, i, first + j);
        if (share != 0) wanted[i - begin] += static_cast<double>(share) * score;
        row[j] = in_denominator(side.groups, i, first + j) ? score : -std::numeric_limits<float>::infinity();
      }
      sums[i - begin].merge(sum_of_exponentials(row, scratch.bias, count));
    }
  }
  for (std::int64_t i = begin; i < end; ++i) {
    lse[i] = static_cast<float>(sums[i - begin].value());
    losses[i] = sums[i - begin].value() - wanted[i - begin];
  }
}

template <class T>
void forward(const InfoNceForward<T>& f) {
  const std::int64_t n = f.a.rows, blocks = chunks_of(n, kTile);
  const Side<T> sides[2] = {{f.a, f.b, *f.scale, f.groups, Direction::a_to_b}, {f.b, f.a, *f.scale, f.groups, Direction::b_to_a}};
  std::vector<double> losses(static_cast<std::size_t>(2 * n));
  parallel_for(2 * blocks, 1, [&](std::int64_t task, std::int64_t, std::int64_t) {
    const std::int64_t side = task / blocks, begin = task % blocks * kTile;
    forward_rows(sides[side], begin, std::min(n, begin + kTile), side == 0 ? f.lse_a : f.lse_b, losses.data() + side * n);
  });
  double loss = 0;
  for (const double each : losses) loss += each;
  f.loss[0] = static_cast<float>(0.5 * loss);
}

// What one side's gradient needs: lse of its rows, lse of its columns, and ½ · dloss.
struct Upstream {
  const float *lse_from = nullptr, *lse_to = nullptr;
  float half = 0;
};

// dots of one tile become own ← dloss/dscores, from both directions; returns Σ dloss/dscore · dot.
template <class T>
double score_gradients(const Side<T>& side, const Upstream& up, Scratch& scratch, std::int64_t begin, std::int64_t rows, std::int64_t first,
                       std::int64_t count) {
  const InfoNceGroups& groups = side.groups;
  const bool forth = side.direction == Direction::a_to_b;
  alignas(64) float minus_lse_to[kTile] = {};
  for (std::int64_t j = 0; j < count; ++j) {
    scratch.bias[j] = forth ? log_weight(groups, first + j) : 0.0f;
    minus_lse_to[j] = -up.lse_to[first + j];
  }
  double sum = 0;
  for (std::int64_t i = 0; i < rows; ++i) {
    float *dots = scratch.dots + i * kTile, *own = scratch.own + i * kTile, *other = scratch.other + i * kTile;
    for (std::int64_t j = 0; j < count; ++j) {
      own[j] = in_denominator(groups, begin + i, first + j) ? side.scale * dots[j] : -std::numeric_limits<float>::infinity();
      other[j] = in_denominator(groups, first + j, begin + i) ? side.scale * dots[j] : -std::numeric_limits<float>::infinity();
    }
    exponentials({.scores = own, .bias = scratch.bias, .n = count, .shift = up.lse_from[begin + i], .factor = up.half});
    // In the other direction this row is a column: its weight counts there when that direction is a→b.
    exponentials(
        {.scores = other, .bias = minus_lse_to, .n = count, .shift = forth ? 0.0f : -log_weight(groups, begin + i), .factor = up.half});
    for (std::int64_t j = 0; j < count; ++j) {
      own[j] += other[j] - 2 * up.half * target(groups, begin + i, first + j);
      sum += static_cast<double>(own[j]) * dots[j];
    }
  }
  return sum;
}

// Gradient of the rows [begin, end) of `from`; returns their share of dscale.
template <class T>
double backward_rows(const Side<T>& side, const Upstream& up, const Gradient<T>& to_gradient, std::int64_t begin, std::int64_t end) {
  const std::int64_t n = side.to.rows, columns = side.to.columns, rows = end - begin;
  Scratch scratch(columns);
  const FloatRows from = as_float(side.from, begin, end, scratch.from.get());
  double dscale = 0;
  for (std::int64_t first = 0; first < n; first += kTile) {
    const std::int64_t count = std::min(kTile, n - first);
    const FloatRows to = as_float(side.to, first, first + count, scratch.to.get());
    dots_of(from, rows, to, count, columns, scratch.dots);
    dscale += score_gradients(side, up, scratch, begin, rows, first, count);
    multiply({.rows = rows,
              .columns = columns,
              .inner = count,
              .left = scratch.own,
              .left_stride = kTile,
              .right = to.data,
              .right_stride = to.stride,
              .out = scratch.gradient.get(),
              .out_stride = columns,
              .alpha = side.scale,
              .beta = first == 0 ? 0.0f : 1.0f});
  }
  if (to_gradient) store_rows(to_gradient, begin, rows, scratch.gradient.get(), columns);
  return dscale;
}

template <class T>
void backward(const InfoNceBackward<T>& g) {
  const std::int64_t n = g.a.rows, blocks = chunks_of(n, kTile);
  const float half = 0.5f * g.dloss[0];
  const Side<T> forth{g.a, g.b, *g.scale, g.groups, Direction::a_to_b}, back{g.b, g.a, *g.scale, g.groups, Direction::b_to_a};
  std::vector<double> dscale(static_cast<std::size_t>(blocks));
  parallel_for(2 * blocks, 1, [&](std::int64_t task, std::int64_t, std::int64_t) {
    const std::int64_t begin = task % blocks * kTile, end = std::min(n, begin + kTile);
    if (task < blocks && (g.da || g.dscale != nullptr)) {
      dscale[static_cast<std::size_t>(task)] = backward_rows(forth, {g.lse_a, g.lse_b, half}, g.da, begin, end);
    }
    if (task >= blocks && g.db) backward_rows(back, {g.lse_b, g.lse_a, half}, g.db, begin, end);
  });
  double sum = 0;
  for (const double each : dscale) sum += each;
  if (g.dscale != nullptr) g.dscale[0] += static_cast<float>(sum);
}

}  // namespace

template <>
void infonce_forward<Device::cpu, float>(Queue, const InfoNceForward<float>& f) {
  forward(f);
}
template <>
void infonce_forward<Device::cpu, bf16>(Queue, const InfoNceForward<bf16>& f) {
  forward(f);
}
template <>
void infonce_backward<Device::cpu, float>(Queue, const InfoNceBackward<float>& g) {
  backward(g);
}
template <>
void infonce_backward<Device::cpu, bf16>(Queue, const InfoNceBackward<bf16>& g) {
  backward(g);
}

}  // namespace lc::kernels
