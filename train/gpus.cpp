// What GPUs are known to do, for plans. The H200's rates are those of bench/results/h200-2026-11-28.json (bf16, case named at each line),
// brought to the units of engine/profile: flops and bytes as operators plan them. The others are scaled from them by NVIDIA's data sheets.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "engine/errors.h"
#include "train/rates.h"

namespace lc {
namespace {

constexpr Direction kForward = Direction::forward, kBackward = Direction::backward;

// What no kernel explains of a step of stage 2 of batch 128 (419 cells/s): z is read back there, so the host's work is not hidden.
constexpr double kExposedHost = 0.0120 / 321e3;  // seconds a token

// Drawing negatives is the host's: 1.2 GFLOP/s a thread as --profile says on an AMD EPYC (AVX-512); 16 threads beside a GPU.
constexpr double kNegatives = 1.2e9;

Rates h200_rates() {
  Rates r;
  // langcell's four products of 64 cells of 1024 tokens, by their time: 533 and 421 TFLOP/s
  r.of[{"matmul", kForward}] = {.flops_per_s = 533e12, .call_s = 10e-6};
  r.of[{"matmul", kBackward}] = {.flops_per_s = 421e12, .call_s = 20e-6};
  // Attention slows down on short sequences as if its bytes came on top. From 256 … 8,192 tokens without dropout: 2.77 and 2.31 TB/s;
  // with them, 8 × 2,048 tokens with dropout at 295 and 261 TFLOP/s give the rest.
  r.of[{"attention", kForward}] = {.flops_per_s = 329e12, .bytes_per_s = 2.77e12, .call_s = 12e-6};
  r.of[{"attention", kBackward}] = {.flops_per_s = 293e12, .bytes_per_s = 2.31e12, .call_s = 40e-6};
  r.of[{"norm", kForward}] = {.bytes_per_s = 2.24e12, .call_s = 12e-6};  // 64 cells of 1024, dropout
  r.of[{"norm", kBackward}] = {.bytes_per_s = 2.60e12, .call_s = 40e-6};
  r.of[{"rank_embedding", kForward}] = {.bytes_per_s = 1.09e12, .call_s = 13e-6};  // 64 cells of 1024
  r.of[{"rank_embedding", kBackward}] = {.bytes_per_s = 0.28e12, .call_s = 200e-6};
  r.of[{"cross_entropy", kForward}] = {.flops_per_s = 257e12, .call_s = 72e-6};  // masked genes of 16 cells of 2048
  r.of[{"cross_entropy", kBackward}] = {.flops_per_s = 179e12, .call_s = 333e-6};
  r.of[{"infonce", kForward}] = {.flops_per_s = 93e12, .call_s = 65e-6};  // 4,096 pairs; calls: 512 pairs
  r.of[{"infonce", kBackward}] = {.flops_per_s = 76e12, .call_s = 65e-6};
  r.of[{"rows", kForward}] = {.call_s = 17e-6};  // CLS rows, masked rows
  r.of[{"rows", kBackward}] = {.call_s = 23e-6};
  r.of[{"matching_head", kForward}] = {.call_s = 17e-6};  // not timed: as rows, which it reads
  r.of[{"matching_head", kBackward}] = {.call_s = 23e-6};
  r.of[{"pointwise", kForward}] = {.bytes_per_s = 1.36e12, .call_s = 9e-6};
  r.of[{"pointwise", kBackward}] = {.bytes_per_s = 1.36e12, .call_s = 26e-6};
  r.of[{"adamw", kForward}] = {.bytes_per_s = 4.11e12};           // 172 million parameters
  r.of[{"gradient_norm", kForward}] = {.bytes_per_s = 2.18e12};   // norm of nine million
  r.of[{"zero_gradients", kForward}] = {.bytes_per_s = 2.11e12};  // half of the copy's 4.22: it only writes
  return r;
}

struct Sheet {  // of NVIDIA's data sheets: bf16 without sparsity, memory
  const char* name;
  const char* full;
  double flops, bytes_per_s, memory;
  double link, network;  // a rank's bytes a second within eight GPUs, and beyond
  const char* basis;
};
constexpr Sheet kSheets[] = {
    {"h200", "NVIDIA H200", 989e12, 4.8e12, 143155 * 1048576.0, 370e9, 50e9, "measured, bench/results/h200-2026-11-28.json"},
    {"h100", "NVIDIA H100 SXM 80 GB", 989e12, 3.35e12, 80e9, 370e9, 50e9,
     "those measured on an H200, bytes scaled by the data sheets' 3.35 / 4.8 TB/s"},
    {"a100", "NVIDIA A100 SXM 80 GB", 312e12, 2.04e12, 80e9, 247e9, 25e9,
     "not measured: those of an H200 scaled by the data sheets' 312 / 989 TFLOP/s and 2.04 / 4.8 TB/s"},
};

}  // namespace

const std::vector<std::string>& gpu_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const Sheet& s : kSheets) all.push_back(s.name);
    return all;
  }();
  return names;
}

Machine gpu(const std::string& name, int ranks) {
  constexpr int kOfOneNode = 8;
  const auto sheet = std::find_if(std::begin(kSheets), std::end(kSheets), [&](const Sheet& s) { return name == s.name; });
  if (sheet == std::end(kSheets))
    throw UsageError(fmt::format("--gpu: no rates are known for '{}'; choose one of {}", name, fmt::join(gpu_names(), ", ")));
  const Sheet& h200 = kSheets[0];
  Rates rates = h200_rates();
  for (auto& [key, rate] : rates.of)
    rate.flops_per_s *= sheet->flops / h200.flops, rate.bytes_per_s *= sheet->bytes_per_s / h200.bytes_per_s;
  Machine machine;
  machine.name = sheet->full, machine.source = sheet->basis, machine.memory_bytes = sheet->memory;
  machine.stage[0] = machine.stage[1] = rates;
  machine.stage[1].of[{"negatives", kForward}] = {.flops_per_s = 16 * kNegatives};
  machine.stage[1].per_token_s = kExposedHost;
  const bool node = ranks <= kOfOneNode;
  machine.link_bytes_per_s = node ? sheet->link : sheet->network;
  machine.link_source =
      node ? "assumed: NCCL's ring on one node of eight, as published (370 GB/s on H100 and H200; A100 by its links, 600 / 900)"
           : "assumed: one network card a GPU, of 400 Gbit/s (A100: 200)";
  return machine;
}

}  // namespace lc
