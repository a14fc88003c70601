// One description of an operator at one size gives: CPU against the double reference, gradients against the reference's differences
// under a random upstream gradient, f32 and bf16, two thread counts (equal bits), wrong shapes; CUDA against both. bench/kernels walks the
// same list.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/ops.h"

namespace lc::test {

// Random values of an input, already rounded to the storage type when the reference sees them.
enum class Role : std::uint8_t {
  activation,  // storage type (f32, bf16), gradient in the storage type or float
  parameter,   // storage type, gradient float (matrices, tables)
  vector       // always float: biases, LayerNorm, scale, z
};
struct Input {
  std::string name;
  Shape shape;
  Role role = Role::activation;
  double scale = 1, offset = 0;  // values: offset + scale · N(0, 1)
  bool differentiable = true;
};

using Values = std::vector<double>;  // one input or output, row by row

struct OpCase {
  std::string word, name;  // "attention", "self, ragged, dropout"
  std::vector<Input> inputs;
  std::function<Tensor(const std::vector<Tensor>& in)> run;        // through engine/ops.h; other data (ids, packings) captured
  std::function<Values(const std::vector<Values>& in)> reference;  // the obvious loops, in double
  double tolerance = 2e-5,
         tolerance_bf16 = 2e-2;  // ‖difference‖ / ‖reference‖ of the output; above these defaults: say why on the same line
  double gradient_tolerance = 2e-4, gradient_tolerance_bf16 = 5e-2;
  // For the benchmark: of one forward, operations, numbers of the storage type that cross memory, bytes beside them; of backward, the
  // numbers.
  double flops = 0, moved = 0, bytes = 0, moved_backward = 0;
  double backward_flops = 0;    // 0: twice those of forward
  bool benchmark_only = false;  // too large to be judged by differences
  // What the benchmark times in place of `run`, when that does more than the kernel: made once, called often.
  std::function<std::function<void()>(const std::vector<Tensor>& in)> prepare = nullptr;
};

// A call that must throw ShapeError.
struct WrongCall {
  std::string word, name;
  std::function<void()> call;
};

void check(const OpCase& c);  // GoogleTest expectations
void check(const WrongCall& c);

// Where the reference makes NaN of a NaN in an input, so does `c`, which was built for this queue's device.
void check_nan(const OpCase& c, const Queue& queue, const std::vector<DType>& storages = {DType::f32, DType::bf16});
// ReLU and GELU of NaN, −1 and 2 and what their gradients make of them, as PyTorch's: a linear layer of one token.
void check_activations_of_nan(const Queue& queue);

// Where the case files put ids, packings and random tensors; check() judges on the CPU.
Queue& test_queue();
struct OnBoth {  // the same case built with test_queue() on the CPU and on CUDA
  OpCase cpu, cuda;
};
// CUDA against the double reference and against the CPU, forward and gradients; equal bits after every `setting` (thread orders).
void check(const OnBoth& c, const std::vector<std::function<void()>>& settings,
           const std::vector<DType>& storages = {DType::f32, DType::bf16});

// For the case files.
std::vector<std::int32_t> ragged(std::int64_t sequences, std::int64_t longest,
                                 std::uint64_t seed);  // lengths 0 … longest, with a zero and a longest among them
PackingPtr packing_of(const std::vector<std::int32_t>& lengths, std::uint64_t first_key = 1, const std::vector<std::int32_t>& kv_of = {});
Tensor random_tensor(const Shape& shape, DType type, std::uint64_t seed, double scale = 1);
Tensor ids_of(const std::vector<std::int32_t>& ids);

}  // namespace lc::test
