#include "engine/tape.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/errors.h"
#include "engine/profile.h"

namespace lc {
namespace {

using Range = std::pair<std::int64_t, std::int64_t>;
bool overlap(const Range& a, const Range& b) { return a.first < b.second && b.first < a.second; }

// to += from (or =), whatever their types.
void move_into(const Tensor& to, const Tensor& from, kernels::Into into) {
  const auto run = [&]<class From, class To>() {
    on(to.queue(), [&]<Device D>() {
      kernels::convert<D>(to.queue(), kernels::Convert<From, To>{from.view<const From>(), to.view<To>(), into});
    });
  };
  if (from.dtype() == DType::f32)
    to.dtype() == DType::f32 ? run.operator()<float, float>() : run.operator()<float, bf16>();
  else
    to.dtype() == DType::f32 ? run.operator()<bf16, float>() : run.operator()<bf16, bf16>();
}

// Sets the leaves' tape for a while.
class Redirected {
 public:
  Redirected(const std::vector<std::shared_ptr<Leaf>>& leaves, Tape* tape) : leaves_(leaves) {
    for (const auto& leaf : leaves_) before_.push_back(leaf->tape);
    for (const auto& leaf : leaves_) leaf->tape = leaf->tape ? tape : nullptr;
  }
  ~Redirected() {
    for (std::size_t i = 0; i < leaves_.size(); ++i) leaves_[i]->tape = before_[i];
  }
  Redirected(const Redirected&) = delete;
  Redirected& operator=(const Redirected&) = delete;

 private:
  const std::vector<std::shared_ptr<Leaf>>& leaves_;
  std::vector<Tape*> before_;
};

}  // namespace

Tape* tape_of(const char* name, std::span<const Tensor> in) {
  Tape* tape = nullptr;
  for (const Tensor& t : in) {
    if (!t.tape()) continue;
    if (tape && tape != t.tape()) {
      throw ShapeError(fmt::format("{}: wanted inputs of one tape, got two (a recompute segment uses {} without declaring it?)", name,
                                   t.leaf() ? t.leaf()->name : "an outer tensor"));
    }
    tape = t.tape();
  }
  return tape;
}

int Tape::add_slot(const Tensor& like) {
  slots_.push_back({like.shape(), like.dtype(), like.queue(), {}, {}, {}, false});
  return static_cast<int>(slots_.size()) - 1;
}

Tensor Tape::watch(const Tensor& x) {
  const int slot = add_slot(x);
  slots_[slot].watched = true;
  return x.recorded(this, slot);
}

Tensor Tape::gradient(const Tensor& watched) const {
  if (watched.tape() != this || watched.slot() < 0) throw ShapeError("gradient: wanted a tensor watched by this tape");
  return slots_[watched.slot()].gradient;
}

Tensor Tape::record(const char* name, std::vector<Tensor> in, const Tensor& out, Backward backward) {
  for (const Tensor& t : in) {
    if (t.tape() == this && t.slot() >= 0) slots_[t.slot()].uses.push_back({t.first_column(), t.first_column() + t.columns()});
  }
  Node node{name, std::move(in), add_slot(out), std::move(backward), {}};
  for (const Tensor& t : node.in) note(t.leaf().get(), node);
  nodes_.push_back(std::move(node));
  return out.recorded(this, nodes_.back().slot);
}

void Tape::note(const Leaf* parameter, Node& reader) {
  if (parameter && parameter->tape == this && parameters_.insert(parameter).second) reader.first_read.push_back(parameter);
}

Tensor Tape::recompute(const std::vector<Tensor>& inputs, const std::vector<std::shared_ptr<Leaf>>& parameters, const Segment& f) {
  std::vector<Tensor> plain;
  for (const Tensor& t : inputs) plain.push_back(t.detached());
  Tensor out;
  {
    const Redirected off(parameters, nullptr);
    out = f(plain);
  }
  if (out.tape()) throw ShapeError("recompute: the segment uses a parameter or tensor that was not declared");
  const Tensor recorded =
      record("recompute", inputs, out, [f, parameters, plain](std::span<const Tensor> in, const Tensor& dout, Gradients& d) {
        Tape inner;
        std::vector<Tensor> watched;
        for (std::size_t i = 0; i < plain.size(); ++i) watched.push_back(in[i].tape() ? inner.watch(plain[i]) : plain[i]);
        const Redirected to_inner(parameters, &inner);
        const Tensor again = f(watched);
        inner.backward({{again, dout}});
        for (std::size_t i = 0; i < plain.size(); ++i) {
          if (!d.wanted(i)) continue;
          const Tensor gradient = inner.gradient(watched[i]);
          if (!gradient) continue;
          if (plain[i].dtype() == DType::f32) {
            const auto g = d.to<float>(i);
            on(dout.queue(), [&]<Device D>() {
              kernels::convert<D>(dout.queue(), kernels::Convert<float, float>{gradient.view<const float>(), g.to, g.into});
            });
          } else {
            const auto g = d.to<bf16>(i);
            const Tensor rounded = gradient.to(DType::bf16);
            on(dout.queue(), [&]<Device D>() {
              kernels::convert<D>(dout.queue(), kernels::Convert<bf16, bf16>{rounded.view<const bf16>(), g.to, g.into});
            });
          }
        }
      });
  for (const std::shared_ptr<Leaf>& parameter : parameters) note(parameter.get(), nodes_.back());
  return recorded;
}

// A gradient with more than two contributions accumulates in float.
Tensor& Tape::gradient_buffer(int slot, bool in_float) {
  Slot& s = slots_[slot];
  if (s.gradient) return s.gradient;
  for (const Range& use : s.uses) {
    in_float = in_float || std::count_if(s.uses.begin(), s.uses.end(), [&](const Range& other) { return overlap(use, other); }) > 2;
  }
  s.gradient = Tensor::empty(s.shape, in_float ? DType::f32 : s.type, s.queue);
  return s.gradient;
}

void Tape::add_to_slot(int slot, std::int64_t first_column, const Tensor& gradient) {
  Slot& s = slots_[slot];
  Tensor& buffer = gradient_buffer(slot, false);
  const Range range{first_column, first_column + gradient.columns()};
  const bool whole = range == Range{0, s.shape.columns()};
  const bool seen = std::any_of(s.written.begin(), s.written.end(), [&](const Range& w) { return overlap(w, range); });
  const bool known =
      std::any_of(s.written.begin(), s.written.end(), [&](const Range& w) { return w.first <= range.first && range.second <= w.second; });
  if (seen && !known) throw ShapeError("tape: wanted column slices of one tensor to be equal or apart, got overlapping ones");
  move_into(whole ? buffer : buffer.slice_columns(first_column, gradient.columns()), gradient,
            seen ? kernels::Into::add : kernels::Into::write);
  if (!seen) s.written.push_back(range);
}

void Tape::clear_unwritten(Slot& s) {
  std::sort(s.written.begin(), s.written.end());
  std::int64_t done = 0;
  const auto clear_until = [&](std::int64_t end) {
    if (end > done) s.gradient.slice_columns(done, end - done).fill_zero();
  };
  for (const Range& w : s.written) {
    clear_until(w.first);
    done = std::max(done, w.second);
  }
  clear_until(s.shape.columns());
  s.written = {{0, s.shape.columns()}};
}

Tensor Tape::take_gradient(int slot) {
  Slot& s = slots_[slot];
  if (!s.gradient) return {};
  clear_unwritten(s);
  Tensor complete = s.gradient.to(s.type);
  s.gradient = {};
  return complete;
}

void Tape::backward(const std::vector<Seed>& seeds) {
  for (const Seed& seed : seeds) {
    if (seed.of.tape() != this) throw ShapeError("backward: wanted seeds recorded on this tape");
    if (seed.of.shape() != seed.gradient.shape())
      throw ShapeError(fmt::format("backward: wanted a seed of {}, got {}", seed.of.shape().text(), seed.gradient.shape().text()));
    add_to_slot(seed.of.slot(), seed.of.first_column(), seed.gradient);
  }
  while (!nodes_.empty()) {
    Node node = std::move(nodes_.back());
    nodes_.pop_back();
    if (const Tensor dout = take_gradient(node.slot)) {
      Gradients d(*this, node.in);
      node.backward(node.in, dout, d);
      d.finish();
    }
    if (!ready_) continue;
    for (const Leaf* parameter : node.first_read) ready_(*parameter);
  }
  for (Slot& s : slots_) {
    if (s.watched && s.gradient) clear_unwritten(s);
  }
}

std::pair<Tensor, kernels::Into> Gradients::place_of(std::size_t i, DType type) {
  const Tensor& x = in_[i];
  if (x.leaf()) throw ShapeError(fmt::format("tape: {} is a parameter; its gradient is asked for with parameter()", x.leaf()->name));
  Tape::Slot& s = tape_.slots_[x.slot()];
  const Range range{x.first_column(), x.first_column() + x.columns()};
  const bool twice =
      std::any_of(given_.begin(), given_.end(), [&](const auto& g) { return g.first == x.slot() && overlap(g.second, range); });
  given_.push_back({x.slot(), range});
  Tensor& buffer = tape_.gradient_buffer(x.slot(), false);
  const bool seen = std::any_of(s.written.begin(), s.written.end(), [&](const Range& w) { return overlap(w, range); });
  const bool known =
      std::any_of(s.written.begin(), s.written.end(), [&](const Range& w) { return w.first <= range.first && range.second <= w.second; });
  if (twice || buffer.dtype() != type || (seen && !known)) {
    waiting_.push_back({x.slot(), x.first_column(), Tensor::empty(x.shape(), type, x.queue())});
    return {waiting_.back().gradient, kernels::Into::write};
  }
  if (!seen) s.written.push_back(range);
  const bool whole = range == Range{0, s.shape.columns()};
  return {whole ? buffer : buffer.slice_columns(range.first, x.columns()), seen ? kernels::Into::add : kernels::Into::write};
}

float* Gradients::parameter(std::size_t i) {
  if (!wanted(i)) return nullptr;
  const Tensor& x = in_[i];
  if (x.leaf()) {
    const auto& memory = x.leaf()->gradient;
    places_.push_back(Tensor::over({memory, reinterpret_cast<std::byte*>(memory.get())}, x.shape(), DType::f32, x.queue()));
    return memory.get();
  }
  Tape::Slot& s = tape_.slots_[x.slot()];
  if (x.first_column() != 0 || x.columns() != s.shape.columns())
    throw ShapeError("tape: wanted a whole tensor as parameter, got a column slice");
  Tensor& buffer = tape_.gradient_buffer(x.slot(), true);
  if (s.written.empty()) {
    buffer.fill_zero();
    s.written.push_back({0, s.shape.columns()});
  }
  return buffer.data<float>();
}

void Gradients::finish() {
  for (const Waiting& w : waiting_) tape_.add_to_slot(w.slot, w.first_column, w.gradient);
}

}  // namespace lc
