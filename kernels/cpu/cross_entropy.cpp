// cross_entropy: softmax cross-entropy of x · tableᵀ + bias, tile by tile of the vocabulary; the backward pass computes the logits again.
// One task owns a span of the vocabulary, so its dtable and dbias have one writer; dx is the sum of one partial per span, in their order.
#include <hwy/aligned_allocator.h>

#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/loss_tiles.h"
#include "kernels/cpu/scratch.h"

namespace lc::kernels {
namespace {

using namespace loss_tiles;

constexpr std::int64_t kRows = 128;        // of x in one tile of logits
constexpr std::int64_t kTile = 512;        // of the vocabulary in one tile of logits
constexpr std::int64_t kSpan = 2 * kTile;  // of the vocabulary in one task
constexpr std::int64_t kPass = 1024;       // rows of x whose partial dx are held at a time

struct Range {
  std::int64_t begin = 0, end = 0;
  std::int64_t size() const { return end - begin; }
};
Range block(std::int64_t index, std::int64_t size, Range within) {
  const std::int64_t begin = within.begin + index * size;
  return {begin, std::min(within.end, begin + size)};
}
template <class F>
void each_block(std::int64_t size, Range within, F&& f) {
  for (std::int64_t i = 0; i < chunks_of(within.size(), size); ++i) f(block(i, size, within));
}

// What a task needs beside its arguments: the operands as float, the bias of a tile padded, and the tile of logits.
struct Scratch {
  explicit Scratch(std::int64_t columns)
      : x(aligned_floats(kRows * columns)),
        table(aligned_floats(kTile * columns)),
        bias(aligned_floats(kTile)),
        logits(aligned_floats(kRows * kTile)) {}
  hwy::AlignedFreeUniquePtr<float[]> x, table, bias, logits;
};

void copy_bias(const float* bias, Range tile, float* to) {
  std::fill(to, to + kTile, 0.0f);
  if (bias != nullptr) std::copy(bias + tile.begin, bias + tile.end, to);
}

// logits (rows, kTile) = x · tableᵀ
void logits_of(FloatRows x, std::int64_t rows, FloatRows table, std::int64_t words, std::int64_t columns, float* logits) {
  multiply({.rows = rows,
            .columns = words,
            .inner = columns,
            .left = x.data,
            .left_stride = x.stride,
            .right = table.data,
            .right_stride = table.stride,
            .out = logits,
            .out_stride = kTile,
            .transpose = Transpose::right});
}

// Log-sum-exp of the rows over one span, and the logit of a label that falls into it.
template <class T>
void sum_span(const CrossEntropyForward<T>& a, Range rows, Range span, LogSumExp* sums, float* label_logits) {
  Scratch scratch(a.x.columns);
  const FloatRows x = as_float(a.x, rows.begin, rows.end, scratch.x.get());
  each_block(kTile, span, [&](Range tile) {
    const FloatRows table = as_float(a.table, tile.begin, tile.end, scratch.table.get());
    copy_bias(a.bias, tile, scratch.bias.get());
    logits_of(x, rows.size(), table, tile.size(), a.x.columns, scratch.logits.get());
    for (std::int64_t i = 0; i < rows.size(); ++i) {
      float* row = scratch.logits.get() + i * kTile;
      sums[i].merge(sum_of_exponentials(row, scratch.bias.get(), tile.size()));
      const std::int64_t label = a.labels[rows.begin + i];
      if (label >= tile.begin && label < tile.end) label_logits[i] = row[label - tile.begin];
    }
  });
}

template <class T>
void forward(const CrossEntropyForward<T>& a) {
  const std::int64_t m = a.x.rows, spans = chunks_of(a.vocabulary, kSpan), row_blocks = chunks_of(m, kRows);
  std::vector<LogSumExp> sums(static_cast<std::size_t>(spans * m));
  std::vector<float> label_logits(static_cast<std::size_t>(m));
  parallel_for(spans * row_blocks, 1, [&](std::int64_t task, std::int64_t, std::int64_t) {
    const std::int64_t s = task / row_blocks;
    const Range rows = block(task % row_blocks, kRows, {0, m});
    sum_span(a, rows, block(s, kSpan, {0, a.vocabulary}), sums.data() + s * m + rows.begin, label_logits.data() + rows.begin);
  });
  double loss = 0;
  for (std::int64_t i = 0; i < m; ++i) {
    LogSumExp all;
    for (std::int64_t s = 0; s < spans; ++s) all.merge(sums[static_cast<std::size_t>(s * m + i)]);
    a.lse[i] = static_cast<float>(all.value());
    loss += all.value() - static_cast<double>(label_logits[static_cast<std::size_t>(i)]);
  }
  a.loss[0] = static_cast<float>(loss);
}

// logits ← dlogits of rows × tile; dbias += their column sums
template <class T>
void logit_gradients(const CrossEntropyBackward<T>& a, Range rows, Range tile, const float* bias, float* logits) {
  const float dloss = a.dloss[0];
  alignas(64) float sums[kTile] = {};
  for (std::int64_t i = 0; i < rows.size(); ++i) {
    float* row = logits + i * kTile;
    exponentials_and_sums({.scores = row, .bias = bias, .n = tile.size(), .shift = a.lse[rows.begin + i], .factor = dloss}, sums);
    const std::int64_t label = a.labels[rows.begin + i];
    if (label >= tile.begin && label < tile.end) row[label - tile.begin] -= dloss, sums[label - tile.begin] -= dloss;
  }
  if (a.dbias != nullptr) add(a.dbias + tile.begin, sums, tile.size());
}

// One span of the vocabulary against all rows of a pass; dx (rows of the pass, columns) receives the span's part, or is null.
template <class T>
void backward_span(const CrossEntropyBackward<T>& a, Range rows_of_pass, Range span, float* dx) {
  const std::int64_t columns = a.x.columns;
  Scratch scratch(columns);
  each_block(kTile, span, [&](Range tile) {
    const FloatRows table = as_float(a.table, tile.begin, tile.end, scratch.table.get());
    copy_bias(a.bias, tile, scratch.bias.get());
    each_block(kRows, rows_of_pass, [&](Range rows) {
      const FloatRows x = as_float(a.x, rows.begin, rows.end, scratch.x.get());
      logits_of(x, rows.size(), table, tile.size(), columns, scratch.logits.get());
      logit_gradients(a, rows, tile, scratch.bias.get(), scratch.logits.get());
      if (a.dtable != nullptr) {
        multiply({.rows = tile.size(),
                  .columns = columns,
                  .inner = rows.size(),
                  .left = scratch.logits.get(),
                  .left_stride = kTile,
                  .right = x.data,
                  .right_stride = x.stride,
                  .out = a.dtable + tile.begin * columns,
                  .out_stride = columns,
                  .beta = 1,
                  .transpose = Transpose::left});
      }
      if (dx != nullptr) {
        multiply({.rows = rows.size(),
                  .columns = columns,
                  .inner = tile.size(),
                  .left = scratch.logits.get(),
                  .left_stride = kTile,
                  .right = table.data,
                  .right_stride = table.stride,
                  .out = dx + (rows.begin - rows_of_pass.begin) * columns,
                  .out_stride = columns,
                  .beta = tile.begin == span.begin ? 0.0f : 1.0f});
      }
    });
  });
}

template <class T>
void backward(const CrossEntropyBackward<T>& a) {
  const std::int64_t columns = a.x.columns, spans = chunks_of(a.vocabulary, kSpan), part = std::min(a.x.rows, kPass) * columns;
  const auto parts = aligned_floats(static_cast<std::size_t>(a.dx ? std::max<std::int64_t>(spans * part, 1) : 1));
  each_block(kPass, {0, a.x.rows}, [&](Range pass) {
    parallel_for(spans, 1, [&](std::int64_t s, std::int64_t, std::int64_t) {
      backward_span(a, pass, block(s, kSpan, {0, a.vocabulary}), a.dx ? parts.get() + s * part : nullptr);
    });
    if (!a.dx) return;
    parallel_for(pass.size(), 16, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
      float* sum = parts.get() + begin * columns;
      for (std::int64_t s = 1; s < spans; ++s) add(sum, parts.get() + s * part + begin * columns, (end - begin) * columns);
      store_rows(a.dx, pass.begin + begin, end - begin, sum, columns);
    });
  });
}

}  // namespace

template <>
void cross_entropy_forward<Device::cpu, float>(Queue, const CrossEntropyForward<float>& a) {
  forward(a);
}
template <>
void cross_entropy_forward<Device::cpu, bf16>(Queue, const CrossEntropyForward<bf16>& a) {
  forward(a);
}
template <>
void cross_entropy_backward<Device::cpu, float>(Queue, const CrossEntropyBackward<float>& a) {
  backward(a);
}
template <>
void cross_entropy_backward<Device::cpu, bf16>(Queue, const CrossEntropyBackward<bf16>& a) {
  backward(a);
}

}  // namespace lc::kernels
