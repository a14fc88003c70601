// An operator is a small value: attributes, plan, forward, backward. apply() is the one door: check, allocate, run, record, profile,
// check-finite. plan() touches no memory and no device, so that a model can be walked without either.
#pragma once
#include <concepts>
#include <initializer_list>
#include <span>
#include <vector>

#include "engine/profile.h"
#include "engine/tape.h"
#include "engine/tensor.h"

namespace lc {

enum class Keep : std::uint8_t { for_backward, always };  // for_backward: absent in inference, so a kernel gets a null pointer

struct Spec {
  Shape shape;
  DType type = DType::f32;
  Keep keep = Keep::for_backward;
};

struct Plan {
  Spec output;
  std::vector<Spec> saved{};           // what forward leaves for backward
  std::size_t workspace = 0;           // floats, forward
  std::size_t backward_workspace = 0;  // floats, backward
  std::vector<int> unsaved_inputs{};   // inputs whose numbers backward does not read
  bool saves_output = false;           // backward reads saved.output
  double flops = 0;                    // of forward; backward counts twice as much
};

using In = std::span<const Tensor>;

struct Saved {
  std::vector<Tensor> tensors;
  Tensor output, workspace;  // output only when the plan says so and in backward
  template <class T = float>
  T* data(std::size_t i) const {
    return tensors[i] ? tensors[i].template data<T>() : nullptr;
  }
  float* work() const { return workspace ? workspace.data<float>() : nullptr; }
};

template <class O>
concept Operator = requires(const O op, Queue queue, In in, Tensor& out, Saved& saved, const Saved& kept, const Tensor& dout,
                            Gradients& d) {
  { O::name } -> std::convertible_to<const char*>;
  { op.plan(in) } -> std::same_as<Plan>;
  op.forward(queue, in, out, saved);
  op.backward(queue, in, kept, dout, d);
};

inline Tensor floats(std::size_t count, const Queue& queue) {
  return count ? Tensor::empty(Shape{static_cast<std::int64_t>(count)}, DType::f32, queue) : Tensor();
}

template <Operator O>
Tensor apply(const O& op, std::initializer_list<Tensor> inputs) {
  std::vector<Tensor> in(inputs);
  const Plan plan = op.plan(in);
  Tape* const tape = tape_of(O::name, in);
  const Queue queue = in.front().queue();
  Tensor out = Tensor::empty(plan.output.shape, plan.output.type, queue);
  Saved saved;
  for (const Spec& s : plan.saved)
    saved.tensors.push_back(tape || s.keep == Keep::always ? Tensor::empty(s.shape, s.type, queue) : Tensor());
  saved.workspace = floats(plan.workspace, queue);
  {
    const Measured measured(O::name, Direction::forward, in, out, plan.flops);
    op.forward(queue, in, out, saved);
  }
  if (inspection().check_finite) check_finite(O::name, Direction::forward, out);
  if (!tape) return out;

  saved.workspace = {};
  if (plan.saves_output) saved.output = out.detached();
  for (const int i : plan.unsaved_inputs) in[i] = in[i].without_numbers();
  return tape->record(O::name, std::move(in), out,
                      [op, plan, saved = std::move(saved), queue](In kept, const Tensor& dout, Gradients& d) mutable {
                        saved.workspace = floats(plan.backward_workspace, queue);
                        const Measured measured(O::name, Direction::backward, kept, dout, 2 * plan.flops);
                        op.backward(queue, kept, saved, dout, d);
                        if (!inspection().check_finite) return;
                        for (const Tensor& place : d.places()) check_finite(O::name, Direction::backward, place);
                      });
}

}  // namespace lc
