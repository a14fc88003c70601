// rank_encoding: a block sorts the genes of one cell, by token to add up repeated ones, then by value. In shared memory, or, for a cell
// with more genes than that holds, in global memory. Sorting is by bitonic merges, whose order of comparisons depends on the size alone.
#include "kernels/cuda/launch.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/scratch.h"

namespace lc::kernels {
namespace {

using namespace cuda;

constexpr int kThreads = 256;
constexpr int kGenes = 4096;  // in shared memory
constexpr std::int32_t kNoToken = 0x7fffffff;

struct Ranked {
  union {
    double value;
    std::int64_t place;  // in the row, before values are known
  };
  float count;
  std::int32_t token;  // kNoToken: not a gene of the vocabulary, or added to another
};
static_assert(sizeof(Ranked) == 16);

struct ByToken {
  __device__ bool operator()(const Ranked& a, const Ranked& b) const { return a.token != b.token ? a.token < b.token : a.place < b.place; }
};
struct ByValue {  // the largest first, what is no gene last
  __device__ bool operator()(const Ranked& a, const Ranked& b) const {
    if ((a.token == kNoToken) != (b.token == kNoToken)) return b.token == kNoToken;
    return a.value != b.value ? a.value > b.value : a.token < b.token;
  }
};

// Sorts n genes by all threads of the block. A place past the end stands for what comes last: pairs that reach there are left alone,
// because the first step of every merge mirrors its second half and all compare in one direction.
template <class Before>
__device__ void sort(Ranked* genes, int n, Before before) {
  for (int size = 2; size < 2 * n; size *= 2) {
    for (int step = size / 2; step > 0; step /= 2) {
      const bool mirrored = step == size / 2;
      for (int i = static_cast<int>(threadIdx.x);; i += kThreads) {
        const int low = i / step * 2 * step + i % step;
        if (low >= n) break;
        const int high = mirrored ? i / step * 2 * step + 2 * step - 1 - i % step : low + step;
        if (high < n && before(genes[high], genes[low])) {
          const Ranked other = genes[low];
          genes[low] = genes[high], genes[high] = other;
        }
      }
      __syncthreads();
    }
  }
}

// rank_encoding_kernel: one block encodes one cell.
// in   indptr, columns, counts, n_counts, token_of_column, median_of_token      out  tokens (cells, max_tokens), lengths (cells)
// grid (cells)   block 256   shared 4096 genes of 16 bytes and 8 sums
// the same ids as the CPU: IEEE division and products that are not contracted
__global__ void __launch_bounds__(kThreads) rank_encoding_kernel(RankEncoding e, Ranked* room) {
  const auto cell = static_cast<std::int64_t>(blockIdx.x);
  const std::int64_t first = e.indptr[cell];
  const int n = static_cast<int>(e.indptr[cell + 1] - first), thread = static_cast<int>(threadIdx.x);
  Ranked* const genes = n <= kGenes ? ptx::dynamic_shared<Ranked>() : room + first;
  for (int i = thread; i < n; i += kThreads) {
    const std::int32_t token = e.token_of_column[e.columns[first + i]];
    genes[i].place = i, genes[i].count = e.counts[first + i], genes[i].token = token < 0 ? kNoToken : token;
  }
  __syncthreads();
  sort(genes, n, ByToken{});
  // The first of equal tokens takes the counts of the others, in the order of the row.
  for (int i = thread; i < n; i += kThreads) {
    if (genes[i].token == kNoToken || (i > 0 && genes[i].token == genes[i - 1].token)) continue;
    for (int j = i + 1; j < n && genes[j].token == genes[i].token; ++j) genes[i].count += genes[j].count, genes[j].count = 0;
  }
  __syncthreads();
  int found = 0;
  for (int i = thread; i < n; i += kThreads) {
    Ranked& gene = genes[i];
    if (gene.token == kNoToken || gene.count == 0) {
      gene.value = 0, gene.token = kNoToken;
    } else {
      const float share = __fdiv_rn(gene.count, e.n_counts[cell]);
      gene.value = static_cast<double>(__fmul_rn(share, 10000.0f)) / e.median_of_token[gene.token];
      ++found;
    }
  }
  __syncthreads();
  sort(genes, n, ByValue{});
  found = block_sum(found, reinterpret_cast<int*>(ptx::dynamic_shared<Ranked>() + kGenes));
  const int kept = static_cast<int>(found < e.max_tokens ? found : e.max_tokens);
  for (int i = thread; i < kept; i += kThreads) e.tokens[cell * e.max_tokens + i] = genes[i].token;
  if (thread == 0) e.lengths[cell] = kept;
}

constexpr std::size_t kSharedBytes = kGenes * sizeof(Ranked) + kThreads / kWarpSize * sizeof(int);

}  // namespace

template <>
void rank_encoding<Device::cuda>(Queue queue, const RankEncoding& e) {
  const Scratch<Ranked> room(queue, e.longest > kGenes ? e.nonzeros : 0);
  const Grid grid{dim3(static_cast<unsigned>(e.cells)), dim3(kThreads), kSharedBytes};
  launch("rank_encoding_kernel", rank_encoding_kernel, grid, queue, e, room.get());
}

}  // namespace lc::kernels
