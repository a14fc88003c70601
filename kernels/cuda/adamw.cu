// adamw: one pass over the arena. gradient_norm: squares summed in double, a chunk a block, the chunks' sums in order.
// The table of segments is on the host; it travels with the launch, kSegments at a time.
#include <algorithm>
#include <cmath>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/scratch.h"
#include "kernels/cuda/vector.cuh"

namespace lc::kernels {
namespace {

using namespace cuda;

constexpr int kThreads = 256, kTogether = 4;  // numbers of a thread at a time
constexpr int kSegments = 96;                 // of one launch
constexpr std::int64_t kUpdateChunk = 4096, kNormChunk = 4096;

struct Piece {  // of the arena, under one rule
  std::int64_t begin = 0, length = 0;
  float shrink = 0;              // lr · decay
  std::int32_t first_chunk = 0;  // of the launch
};
struct Pieces {
  Piece of[kSegments];
  int count = 0;
  std::int32_t chunks = 0;
};
struct Chunk {
  std::int64_t begin, end;
  float shrink;
};
__device__ __forceinline__ Chunk chunk_of(const Pieces& pieces, std::int32_t chunk, std::int64_t size) {
  int low = 0, high = pieces.count - 1;
  while (low < high) {  // the last piece that begins at or before this chunk
    const int middle = (low + high + 1) / 2;
    if (pieces.of[middle].first_chunk <= chunk)
      low = middle;
    else
      high = middle - 1;
  }
  const Piece& piece = pieces.of[low];
  const std::int64_t begin = (chunk - piece.first_chunk) * size;
  return {piece.begin + begin, piece.begin + (begin + size < piece.length ? begin + size : piece.length), piece.shrink};
}

// f(pieces, chunks before these) for every launch that the unfrozen segments need.
template <class F>
void for_launches(const Segment* segments, std::int64_t count, std::int64_t chunk, float lr, F&& f) {
  Pieces pieces;
  std::int64_t before = 0;
  const auto flush = [&] {
    if (pieces.count > 0) f(pieces, before);
    before += pieces.chunks, pieces.count = 0, pieces.chunks = 0;
  };
  for (const Segment* s = segments; s != segments + count; ++s) {
    if (s->frozen || s->length == 0) continue;
    if (pieces.count == kSegments) flush();
    const auto shrink = static_cast<float>(static_cast<double>(lr) * static_cast<double>(s->decay));
    pieces.of[pieces.count++] = {s->offset, s->length, shrink, pieces.chunks};
    pieces.chunks += static_cast<std::int32_t>(ceil_div(s->length, chunk));
  }
  flush();
}

// The numbers of a step, rounded once from double: 1 − β must belong to the same β as the bias correction.
struct Factors {
  float keep1, take1, keep2, take2;  // β and 1 − β
  float step_size, second_scale;     // lr / (1 − β1ᵗ), 1 / √(1 − β2ᵗ)
  float eps;
};
template <class T>
struct Arena {
  float *master, *moment1, *moment2;
  const float* gradient;
  T* storage;
  const float* clip_factor;
};

template <int N, class T>
__device__ __forceinline__ void update(const Arena<T>& a, const Factors& f, std::int64_t i, float clip, float shrink) {
  float p[N], m[N], v[N], g[N];
  load(p, a.master + i), load(m, a.moment1 + i), load(v, a.moment2 + i), load(g, a.gradient + i);
#pragma unroll
  for (int k = 0; k < N; ++k) {
    const float scaled = g[k] * clip;
    m[k] = fmaf(f.keep1, m[k], f.take1 * scaled);
    v[k] = fmaf(f.keep2, v[k], f.take2 * (scaled * scaled));
    const float step = f.step_size * m[k] / fmaf(sqrtf(v[k]), f.second_scale, f.eps);
    p[k] -= fmaf(shrink, p[k], step);  // one rounding of p: 1 − lr·decay itself would lose most of a small decay
  }
  store(p, a.master + i), store(m, a.moment1 + i), store(v, a.moment2 + i);
  if (a.storage) store(p, a.storage + i);
}

// adamw_kernel: one block updates one chunk of one piece.
// in   gradient, clip_factor (1)      in and out  master, moment1, moment2      out  storage
// grid (chunks)   block 256   shared none
// moves 28 bytes a parameter and its storage
template <class T>
__global__ void __launch_bounds__(kThreads) adamw_kernel(Arena<T> a, Factors f, Pieces pieces) {
  const Chunk chunk = chunk_of(pieces, static_cast<std::int32_t>(blockIdx.x), kUpdateChunk);
  const float clip = a.clip_factor ? a.clip_factor[0] : 1.0f;
  if (clip != clip) return;  // NaN: the gradient is not finite
  const auto thread = static_cast<std::int64_t>(threadIdx.x);
  const std::int64_t together = chunk.begin % kTogether == 0 ? (chunk.end - chunk.begin) / kTogether : 0;
  for (std::int64_t i = thread; i < together; i += kThreads) update<kTogether>(a, f, chunk.begin + kTogether * i, clip, chunk.shrink);
  for (std::int64_t i = chunk.begin + kTogether * together + thread; i < chunk.end; i += kThreads) update<1>(a, f, i, clip, chunk.shrink);
}

// squares_kernel: the sum of squares of one chunk, in double.
// in   gradient      out  sums (chunks)
// grid (chunks)   block 256   shared 8 doubles
__global__ void __launch_bounds__(kThreads) squares_kernel(const float* gradient, double* sums, Pieces pieces) {
  const Chunk chunk = chunk_of(pieces, static_cast<std::int32_t>(blockIdx.x), kNormChunk);
  double sum = 0;
  for (std::int64_t i = chunk.begin + static_cast<std::int64_t>(threadIdx.x); i < chunk.end; i += kThreads) {
    const double g = gradient[i];
    sum += g * g;
  }
  sum = block_sum(sum, ptx::dynamic_shared<double>());
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// norm_kernel: the norm from the chunks' sums, and the factor that clips it.      grid (1)   block 256   shared 8 doubles
__global__ void __launch_bounds__(kThreads) norm_kernel(const double* sums, std::int64_t chunks, float clip, float* norm, float* factor) {
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < chunks; i += kThreads) sum += sums[i];
  sum = sqrt(block_sum(sum, ptx::dynamic_shared<double>()));
  if (threadIdx.x != 0) return;
  const double wanted = static_cast<double>(clip) / (sum + 1e-6);
  norm[0] = static_cast<float>(sum);
  factor[0] = !(sum < INFINITY) ? NAN : clip > 0 && wanted < 1 ? static_cast<float>(wanted) : 1.0f;
}

constexpr std::size_t kSumBytes = kThreads / kWarpSize * sizeof(double);

template <class T>
void step(const Queue& queue, const AdamW<T>& a) {
  const double beta1 = a.beta1, beta2 = a.beta2, t = static_cast<double>(a.step);
  const auto rounded = [](double x) { return static_cast<float>(x); };
  const Factors f{a.beta1,
                  rounded(1 - beta1),
                  a.beta2,
                  rounded(1 - beta2),
                  rounded(static_cast<double>(a.lr) / (1 - std::pow(beta1, t))),
                  rounded(1 / std::sqrt(1 - std::pow(beta2, t))),
                  a.eps};
  const Arena<T> arena{a.master, a.moment1, a.moment2, a.gradient, a.storage, a.clip_factor};
  for_launches(a.segments, a.count, kUpdateChunk, a.lr, [&](const Pieces& pieces, std::int64_t) {
    launch("adamw_kernel", adamw_kernel<T>, {dim3(static_cast<unsigned>(pieces.chunks)), dim3(kThreads)}, queue, arena, f, pieces);
  });
}

}  // namespace

template <>
void adamw<Device::cuda, float>(Queue queue, const AdamW<float>& a) {
  step(queue, a);
}
template <>
void adamw<Device::cuda, bf16>(Queue queue, const AdamW<bf16>& a) {
  step(queue, a);
}

template <>
void gradient_norm<Device::cuda>(Queue queue, const GradientNorm& a) {
  std::int64_t chunks = 0;
  for_launches(a.segments, a.count, kNormChunk, 0, [&](const Pieces& pieces, std::int64_t) { chunks += pieces.chunks; });
  const Scratch<double> sums(queue, chunks);
  for_launches(a.segments, a.count, kNormChunk, 0, [&](const Pieces& pieces, std::int64_t before) {
    const Grid grid{dim3(static_cast<unsigned>(pieces.chunks)), dim3(kThreads), kSumBytes};
    launch("squares_kernel", squares_kernel, grid, queue, a.gradient, sums.get() + before, pieces);
  });
  launch("norm_kernel", norm_kernel, {dim3(1), dim3(kThreads), kSumBytes}, queue, sums.get(), chunks, a.clip, a.norm, a.clip_factor);
}

}  // namespace lc::kernels
