// Attention forward: blocks of queries × blocks of keys with a running softmax (Milakov & Gimelshein 2018); scores live in scratch only.
// Scores are kept in units of log 2, so that the softmax needs exp2 alone.
#include <cmath>
#include <limits>
#include <numbers>

#include "kernels/cpu/attention_tasks.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention.cpp"
#include <hwy/foreach_target.h>

#include "kernels/cpu/attention_tiles-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lc::kernels::attention {
namespace HWY_NAMESPACE {
namespace {

struct Softmax {  // of one query row, so far
  float max = -std::numeric_limits<float>::infinity(), sum = 0;
};

// A row of n scores, the rest of its last vector becomes −∞. Returns the number of columns in whole vectors.
HWY_INLINE std::int64_t close_row(float* row, std::int64_t n) {
  const std::int64_t rest = n % kLanes;
  if (rest == 0) return n;
  float* const last = row + n - rest;
  const VF nothing = hn::Set(kF, -std::numeric_limits<float>::infinity());
  hn::Store(hn::IfThenElse(hn::FirstN(kF, static_cast<std::size_t>(rest)), hn::Load(kF, last), nothing), kF, last);
  return n - rest + kLanes;
}

// Scores of one row → weights relative to the new maximum, dropped ones 0 but counted in the sum. Returns the factor for what came before.
template <Chance C>
HWY_INLINE float softmax_row(float* row, std::int64_t n, const std::uint32_t* kept, Softmax& softmax) {
  const std::int64_t columns = close_row(row, n);
  VF highest = hn::Set(kF, softmax.max);
  for (std::int64_t c = 0; c < columns; c += kLanes) highest = hn::Max(highest, hn::Load(kF, row + c));
  highest = hn::MaxOfLanes(kF, highest);
  const float max = hn::GetLane(highest), before = std::exp2(softmax.max - max);
  VF sum = hn::Zero(kF);
  for (std::int64_t c = 0; c < columns; c += kLanes) {
    const VF p = exp2(hn::Sub(hn::Load(kF, row + c), highest));
    sum = hn::Add(sum, p);
    hn::Store(C == Chance::on ? hn::IfThenElseZero(kept_lanes(kept, c), p) : p, kF, row + c);
  }
  softmax = {max, softmax.sum * before + sum_of_lanes(sum)};
  return before;
}

struct Block {  // of queries
  std::int64_t rows = 0;
  std::vector<Run> runs;
  Softmax softmax[kQueryBlock];
  Kept kept[kQueryBlock];
  float *q = nullptr, *scores = nullptr, *o = nullptr;
};

template <Chance C>
void attend(Block& block, std::int64_t width, std::int64_t keys, const float* panels, const float* v, Into into) {
  const Strips strips(block.rows);
  for (std::int64_t s = 0; s < strips.count; ++s) {
    const std::int64_t begin = strips.begin(s), end = std::min(begin + strips.rows(s), block.rows);
    float* const scores = block.scores + begin * kStride;
    float* const o = block.o + begin * kStride;
    multiply_panels(strips.rows(s), width, keys, block.q + begin * kStride, panels, scores);
    for (std::int64_t i = begin; i < end; ++i) {
      const float before = softmax_row<C>(block.scores + i * kStride, keys, block.kept[i], block.softmax[i]);
      if (into == Into::write || before == 1.0f) continue;
      const VF factor = hn::Set(kF, before);
      float* const row = block.o + i * kStride;
      for (std::int64_t c = 0; c < width; c += kLanes) hn::Store(hn::Mul(hn::Load(kF, row + c), factor), kF, row + c);
    }
    for (std::int64_t h = 0; h < width; h += kPanel) multiply<Left::rows>(strips.rows(s), {keys, scores, v + h, kStride, o + h, into});
  }
}

template <class T>
void finish(const AttentionForward<T>& a, int head, const Block& block) {
  const Head<T> o = head_of(a.o, head, a.q.columns / a.heads);
  for (const Run& run : block.runs) {
    for (std::int64_t i = 0; i < run.rows; ++i) {
      const Softmax& softmax = block.softmax[run.row + i];
      const float scale = softmax.sum == 0 ? 0.0f : keep_scale(a.dropout) / softmax.sum;
      unpack(block.o + (run.row + i) * kStride, 1, scale, o, run.token + i, Into::write);
      if (a.lse) a.lse[head * a.q.rows + run.token + i] = static_cast<float>(softmax.max * std::numbers::ln2 + std::log(softmax.sum));
    }
  }
}

template <class T>
void forward(const AttentionForward<T>& a, const Task& task, int head) {
  const std::int64_t width = a.q.columns / a.heads, keys = task.keys;
  const float scale = static_cast<float>(a.scale * std::numbers::log2e);
  const Head<const T> q = head_of<const T>(a.q, head, width), k = head_of<const T>(a.k, head, width),
                      v = head_of<const T>(a.v, head, width);
  Scratch& memory = scratch();
  memory.reserve(panels_size(keys, width) + static_cast<std::size_t>((keys + 32 + 3 * (kQueryBlock + 32)) * kStride));
  float* const panels = memory.take(panels_size(keys, width));
  float* const values = memory.rows(keys);
  Block block;
  block.q = memory.rows(kQueryBlock), block.scores = memory.rows(kQueryBlock), block.o = memory.rows(kQueryBlock);

  for (std::int64_t i = 0; i < keys; i += kPanel) {
    const std::int64_t n = std::min(kPanel, keys - i);
    pack(k, task.keys_begin + i, n, 1.0f, block.scores);
    transpose(block.scores, n, width, panels + i * width);
  }
  pack(v, task.keys_begin, keys, 1.0f, values);
  for (std::int64_t begin = 0; begin < task.rows; begin += kQueryBlock) {
    block.rows = std::min(kQueryBlock, task.rows - begin);
    runs_of(task, begin, begin + block.rows, block.runs);
    std::fill_n(block.softmax, block.rows, Softmax{});
    for (const Run& run : block.runs) pack(q, run.token, run.rows, scale, block.q + run.row * kStride);
    clear(1, width, block.q + block.rows * kStride);
    if (keys == 0) clear(block.rows, width, block.o);
    for (std::int64_t first = 0; first < keys; first += kKeyBlock) {
      const std::int64_t n = std::min(kKeyBlock, keys - first);
      const Into into = first == 0 ? Into::write : Into::add;
      if (a.dropout.rate > 0) {
        keep_rows(a.dropout, head, block.runs, first, n, block.kept);
        attend<Chance::on>(block, width, n, panels + first * width, values + first * kStride, into);
      } else {
        attend<Chance::off>(block, width, n, panels + first * width, values + first * kStride, into);
      }
    }
    finish(a, head, block);
  }
}

}  // namespace

void forward_f32(const AttentionForward<float>& a, const Task& task, int head) { forward(a, task, head); }
void forward_bf16(const AttentionForward<bf16>& a, const Task& task, int head) { forward(a, task, head); }

}  // namespace HWY_NAMESPACE
}  // namespace lc::kernels::attention
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lc::kernels {
namespace attention {
HWY_EXPORT(forward_f32);
HWY_EXPORT(forward_bf16);

template <class T, class F>
void run(const AttentionForward<T>& a, F forward) {
  const std::vector<Task> tasks = tasks_of(a.queries, a.keys);
  parallel_for(static_cast<std::int64_t>(tasks.size()) * a.heads, 1, [&](std::int64_t i, std::int64_t, std::int64_t) {
    forward(a, tasks[static_cast<std::size_t>(i / a.heads)], static_cast<int>(i % a.heads));
  });
}
}  // namespace attention

template <>
void attention_forward<Device::cpu, float>(Queue, const AttentionForward<float>& a) {
  attention::run(a, HWY_DYNAMIC_DISPATCH(attention::forward_f32));
}
template <>
void attention_forward<Device::cpu, bf16>(Queue, const AttentionForward<bf16>& a) {
  attention::run(a, HWY_DYNAMIC_DISPATCH(attention::forward_bf16));
}

}  // namespace lc::kernels
#endif
