// Attention backward: the weights are computed again from the saved log-sum-exp, block by block (Dao et al., FlashAttention, algorithm 4).
// A task owns the gradient of its keys and of all queries that read them, so every sum has one fixed order.
#include <numbers>

#include "kernels/cpu/attention_tasks.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_backward.cpp"
#include <hwy/foreach_target.h>

#include "kernels/cpu/attention_tiles-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lc::kernels::attention {
namespace HWY_NAMESPACE {
namespace {

// Scores and products dO·v of one row → dropped weights P∘m and dS = P∘(m∘dP − Σ dO·o). dO carries the scale of what is kept.
// The last vector may go past n: what it computes there is not read.
template <Chance C>
HWY_INLINE void gradient_row(float* scores, float* products, std::int64_t n, const std::uint32_t* kept, float lse, float delta) {
  const VF l = hn::Set(kF, lse), d = hn::Set(kF, delta);
  for (std::int64_t c = 0; c < n; c += kLanes) {
    const VF p = exp2(hn::Sub(hn::Load(kF, scores + c), l)), dp = hn::Load(kF, products + c);
    if constexpr (C == Chance::on) {
      const auto keep = kept_lanes(kept, c);
      hn::Store(hn::Mul(p, hn::Sub(hn::IfThenElseZero(keep, dp), d)), kF, products + c);
      hn::Store(hn::IfThenElseZero(keep, p), kF, scores + c);
    } else {
      hn::Store(hn::Mul(p, hn::Sub(dp, d)), kF, products + c);
      hn::Store(p, kF, scores + c);
    }
  }
}

struct Work {  // of one task and head, in scratch
  std::int64_t width = 0;
  float *k = nullptr, *k_panels = nullptr, *v_panels = nullptr, *dk = nullptr, *dv = nullptr;  // all keys
  float *q = nullptr, *d_o = nullptr, *dq = nullptr, *lse = nullptr, *delta = nullptr;         // all queries
  float *weights = nullptr, *d_scores = nullptr;                                               // a block
  Kept kept[kQueryBlock];
  std::vector<Run> runs;
};
struct Range {
  std::int64_t first = 0, count = 0;
};

template <Chance C>
void weights_of(const Work& w, Range queries, Range keys) {
  const Strips strips(queries.count);
  for (std::int64_t s = 0; s < strips.count; ++s) {
    const std::int64_t begin = strips.begin(s), end = std::min(begin + strips.rows(s), queries.count), row = queries.first + begin;
    multiply_panels(strips.rows(s), w.width, keys.count, w.q + row * kStride, w.k_panels + keys.first * w.width,
                    w.weights + begin * kStride);
    multiply_panels(strips.rows(s), w.width, keys.count, w.d_o + row * kStride, w.v_panels + keys.first * w.width,
                    w.d_scores + begin * kStride);
    for (std::int64_t i = begin; i < end; ++i) {
      gradient_row<C>(w.weights + i * kStride, w.d_scores + i * kStride, keys.count, w.kept[i], w.lse[queries.first + i],
                      w.delta[queries.first + i]);
    }
  }
}

void add_gradients(const Work& w, Range queries, Range keys) {
  const Into first_queries = queries.first == 0 ? Into::write : Into::add;
  const Into first_keys = keys.first == 0 ? Into::write : Into::add;
  const std::int64_t q = queries.first * kStride, k = keys.first * kStride;
  if (w.dv) multiply_rows<Left::columns>(keys.count, w.width, {queries.count, w.weights, w.d_o + q, kStride, w.dv + k, first_queries});
  if (w.dk) multiply_rows<Left::columns>(keys.count, w.width, {queries.count, w.d_scores, w.q + q, kStride, w.dk + k, first_queries});
  if (w.dq) multiply_rows<Left::rows>(queries.count, w.width, {keys.count, w.d_scores, w.k + k, kStride, w.dq + q, first_keys});
}

template <class T>
void pack_keys(const AttentionBackward<T>& a, const Task& task, int head, const Work& w) {
  const Head<const T> k = head_of<const T>(a.k, head, w.width), v = head_of<const T>(a.v, head, w.width);
  pack(k, task.keys_begin, task.keys, 1.0f, w.k);
  transpose(w.k, task.keys, w.width, w.k_panels);
  for (std::int64_t i = 0; i < task.keys; i += kPanel) {
    const std::int64_t n = std::min(kPanel, task.keys - i);
    pack(v, task.keys_begin + i, n, 1.0f, w.weights);
    transpose(w.weights, n, w.width, w.v_panels + i * w.width);
  }
}

template <class T>
void pack_queries(const AttentionBackward<T>& a, const Task& task, int head, const Work& w) {
  const Head<const T> q = head_of<const T>(a.q, head, w.width);
  const Head<const T> o = head_of<const T>(a.o, head, w.width), d_o = head_of<const T>(a.d_o, head, w.width);
  const float scale = static_cast<float>(a.scale * std::numbers::log2e);
  for (const Queries& s : task.queries) {
    pack(q, s.token, s.rows, scale, w.q + s.begin * kStride);
    pack(d_o, s.token, s.rows, keep_scale(a.dropout), w.d_o + s.begin * kStride);
    for (std::int64_t i = 0; i < s.rows; ++i) {
      VF sum = hn::Zero(kF);
      for (std::int64_t c = 0; c < w.width; c += kLanes)
        sum = hn::MulAdd(load(d_o.row(s.token + i) + c), load(o.row(s.token + i) + c), sum);
      w.delta[s.begin + i] = sum_of_lanes(sum);
      w.lse[s.begin + i] = static_cast<float>(a.lse[head * a.q.rows + s.token + i] * std::numbers::log2e);
    }
  }
  clear(1, w.width, w.q + task.rows * kStride);
  clear(1, w.width, w.d_o + task.rows * kStride);
}

template <class T>
Work work_of(const AttentionBackward<T>& a, const Task& task) {
  const std::int64_t width = a.q.columns / a.heads;
  Scratch& memory = scratch();
  const std::int64_t rows = 3 * (task.keys + 32) + 3 * (task.rows + 32) + 2 * (kQueryBlock + 32);
  memory.reserve(2 * panels_size(task.keys, width) + static_cast<std::size_t>(rows * kStride + 2 * (task.rows + 16)));
  Work w;
  w.width = width;
  w.k = memory.rows(task.keys), w.k_panels = memory.take(panels_size(task.keys, width)),
  w.v_panels = memory.take(panels_size(task.keys, width));
  w.q = memory.rows(task.rows), w.d_o = memory.rows(task.rows);
  w.lse = memory.take(static_cast<std::size_t>(task.rows)), w.delta = memory.take(static_cast<std::size_t>(task.rows));
  w.weights = memory.rows(kQueryBlock), w.d_scores = memory.rows(kQueryBlock);
  if (a.dk) w.dk = memory.rows(task.keys);
  if (a.dv) w.dv = memory.rows(task.keys);
  if (a.dq) w.dq = memory.rows(task.rows);
  return w;
}

template <class T>
void backward(const AttentionBackward<T>& a, const Task& task, int head) {
  Work w = work_of(a, task);
  pack_keys(a, task, head, w);
  pack_queries(a, task, head, w);
  for (std::int64_t k = 0; k < task.keys; k += kKeyBlock) {
    const Range keys{k, std::min(kKeyBlock, task.keys - k)};
    for (std::int64_t q = 0; q < task.rows; q += kQueryBlock) {
      const Range queries{q, std::min(kQueryBlock, task.rows - q)};
      if (a.dropout.rate > 0) {
        runs_of(task, q, q + queries.count, w.runs);
        keep_rows(a.dropout, head, w.runs, k, keys.count, w.kept);
        weights_of<Chance::on>(w, queries, keys);
      } else {
        weights_of<Chance::off>(w, queries, keys);
      }
      add_gradients(w, queries, keys);
    }
  }
  if (task.keys == 0 && w.dq) clear(task.rows, w.width, w.dq);
  if (task.rows == 0 && w.dk) clear(task.keys, w.width, w.dk);
  if (task.rows == 0 && w.dv) clear(task.keys, w.width, w.dv);
  if (w.dk) unpack(w.dk, task.keys, std::numbers::ln2_v<float>, head_of(a.dk.to, head, w.width), task.keys_begin, a.dk.into);
  if (w.dv) unpack(w.dv, task.keys, 1.0f, head_of(a.dv.to, head, w.width), task.keys_begin, a.dv.into);
  if (w.dq) {
    for (const Queries& s : task.queries)
      unpack(w.dq + s.begin * kStride, s.rows, a.scale, head_of(a.dq.to, head, w.width), s.token, a.dq.into);
  }
}

}  // namespace

void backward_f32(const AttentionBackward<float>& a, const Task& task, int head) { backward(a, task, head); }
void backward_bf16(const AttentionBackward<bf16>& a, const Task& task, int head) { backward(a, task, head); }

}  // namespace HWY_NAMESPACE
}  // namespace lc::kernels::attention
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lc::kernels {
namespace attention {
HWY_EXPORT(backward_f32);
HWY_EXPORT(backward_bf16);

template <class T, class F>
void run(const AttentionBackward<T>& a, F backward) {
  const std::vector<Task> tasks = tasks_of(a.queries, a.keys);
  parallel_for(static_cast<std::int64_t>(tasks.size()) * a.heads, 1, [&](std::int64_t i, std::int64_t, std::int64_t) {
    backward(a, tasks[static_cast<std::size_t>(i / a.heads)], static_cast<int>(i % a.heads));
  });
}
}  // namespace attention

// For Σ o · dO of every query and head, which the CPU keeps in its threads' own scratch.
std::size_t attention_workspace(int heads, std::int64_t query_tokens) { return static_cast<std::size_t>(heads * query_tokens); }

template <>
void attention_backward<Device::cpu, float>(Queue, const AttentionBackward<float>& a) {
  attention::run(a, HWY_DYNAMIC_DISPATCH(attention::backward_f32));
}
template <>
void attention_backward<Device::cpu, bf16>(Queue, const AttentionBackward<bf16>& a) {
  attention::run(a, HWY_DYNAMIC_DISPATCH(attention::backward_bf16));
}

}  // namespace lc::kernels
#endif
