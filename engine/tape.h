// Eager recording; backward is a loop from the end that frees as it goes. A tape is made for one forward and one backward; tensors
// recorded on it must not enter an operator after it is gone (detached() ones may).
#pragma once
#include <functional>
#include <memory>
#include <span>
#include <unordered_set>
#include <utility>
#include <vector>

#include "engine/tensor.h"

namespace lc {

class Gradients;
struct Seed {
  Tensor of, gradient;  // d loss / d of, same shape; type of `of` or float
};

class Tape {
 public:
  using Backward = std::function<void(std::span<const Tensor> in, const Tensor& dout, Gradients& d)>;

  Tape() = default;
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  Tensor watch(const Tensor& x);                 // x, with a gradient that can be asked for after backward
  Tensor gradient(const Tensor& watched) const;  // absent when nothing reached it
  Tensor record(const char* name, std::vector<Tensor> in, const Tensor& out, Backward backward);

  // The parameters that operators recorded here read, and what backward calls for each of them once nothing that is left adds to its
  // gradient (the reducer's cue).
  const std::unordered_set<const Leaf*>& parameters() const { return parameters_; }
  void on_ready(std::function<void(const Leaf&)> ready) { ready_ = std::move(ready); }

  // f(inputs) is run without recording; backward runs it again, with the same chance, and goes through it. `parameters` are the leaves f
  // uses: an undeclared one is an error. Equal to the bit to not recomputing, as long as the inputs have no other use.
  using Segment = std::function<Tensor(std::span<const Tensor>)>;
  Tensor recompute(const std::vector<Tensor>& inputs, const std::vector<std::shared_ptr<Leaf>>& parameters, const Segment& f);

  void backward(const std::vector<Seed>& seeds);

 private:
  friend class Gradients;
  struct Slot {
    Shape shape;
    DType type = DType::f32;
    Queue queue;
    std::vector<std::pair<std::int64_t, std::int64_t>> uses, written;  // column ranges [begin, end)
    Tensor gradient;
    bool watched = false;
  };
  struct Node {
    const char* name;
    std::vector<Tensor> in;
    int slot = -1;
    Backward backward;
    std::vector<const Leaf*> first_read;  // parameters that nothing recorded before reads
  };
  int add_slot(const Tensor& like);
  void note(const Leaf* parameter, Node& reader);
  Tensor& gradient_buffer(int slot, bool in_float);
  void add_to_slot(int slot, std::int64_t first_column, const Tensor& gradient);
  void clear_unwritten(Slot& slot);
  Tensor take_gradient(int slot);  // complete, in the slot's own type; absent when nothing arrived

  std::vector<Slot> slots_;
  std::vector<Node> nodes_;
  std::unordered_set<const Leaf*> parameters_;
  std::function<void(const Leaf&)> ready_;
};

// Where an operator's backward puts the gradient of input i. d.to<T>(i): absent | write | add.
class Gradients {
 public:
  Gradients(Tape& tape, std::span<const Tensor> in) : tape_(tape), in_(in) {}
  Gradients(const Gradients&) = delete;
  Gradients& operator=(const Gradients&) = delete;

  bool wanted(std::size_t i) const { return i < in_.size() && in_[i].tape() != nullptr; }
  template <class T>
  kernels::Gradient<T> to(std::size_t i) {
    if (!wanted(i)) return {};
    const auto [place, into] = place_of(i, dtype_of<T>);
    places_.push_back(place);
    return {place.template view<T>(), into};
  }
  float* parameter(std::size_t i);                               // float, contiguous, added to; null when not wanted
  const std::vector<Tensor>& places() const { return places_; }  // every place that was asked for, for --check-finite

 private:
  friend class Tape;
  void finish();  // adds what had to wait
  std::pair<Tensor, kernels::Into> place_of(std::size_t i, DType type);
  Tape& tape_;
  std::span<const Tensor> in_;
  struct Waiting {
    int slot;
    std::int64_t first_column;
    Tensor gradient;
  };
  std::vector<Waiting> waiting_;
  std::vector<std::pair<int, std::pair<std::int64_t, std::int64_t>>> given_;
  std::vector<Tensor> places_;
};

Tape* tape_of(const char* name, std::span<const Tensor> in);  // the one tape of the inputs, or null; two different ones are an error

}  // namespace lc
