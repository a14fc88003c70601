// matching_head: does this text describe this cell? Two logits from position 0 of each pair, softmax cross-entropy, summed.
#include <fmt/format.h>

#include "engine/errors.h"
#include "engine/op.h"
#include "engine/ops.h"

namespace lc {
namespace {

enum Input : int { kX, kWeight, kBias, kRows, kLabels };
enum class Wanted : std::uint8_t { loss, logits };

std::int64_t check_and_count(const char* name, In in, Wanted wanted) {
  const Tensor &x = in[kX], &weight = in[kWeight], &bias = in[kBias], &rows = in[kRows], &labels = in[kLabels];
  require_storage_type(name, x);
  const std::int64_t pairs = rows.shape().count();
  const bool head = x.shape().rank() == 2 && weight.shape() == Shape{2, x.columns()} && weight.dtype() == x.dtype() &&
                    bias.shape() == Shape{2} && bias.dtype() == DType::f32;
  const bool index = rows.shape() == Shape{pairs} && rows.dtype() == DType::i32;
  const bool truth = wanted == Wanted::logits || (labels && labels.shape() == Shape{pairs} && labels.dtype() == DType::i32);
  if (!head || !index || !truth) {
    throw ShapeError(fmt::format(
        "{}: wanted x (T, C), weight (2, C) of its type, bias (2) f32, rows (N) i32, labels (N) i32, got {} {}, {} {}, {} {}, {} {}, {} {}",
        name, x.shape().text(), name_of(x.dtype()), weight.shape().text(), name_of(weight.dtype()), bias.shape().text(),
        name_of(bias.dtype()), rows.shape().text(), name_of(rows.dtype()), labels.shape().text(), name_of(labels.dtype())));
  }
  return pairs;
}

void run_forward(Queue queue, In in, std::int64_t pairs, const std::int32_t* labels, float* logits, float* loss) {
  on(queue, in[kX].dtype(), [&]<Device D, class T>() {
    kernels::matching_head_forward<D, T>(queue, {.x = in[kX].view<const T>(),
                                                 .rows = in[kRows].data<std::int32_t>(),
                                                 .weight = in[kWeight].view<const T>(),
                                                 .bias = in[kBias].data<float>(),
                                                 .labels = labels,
                                                 .pairs = pairs,
                                                 .logits = logits,
                                                 .loss = loss});
  });
}

struct Matching {
  static constexpr const char* name = "matching_head";
  Plan plan(In in) const {
    const std::int64_t pairs = check_and_count(name, in, Wanted::loss);
    return {.output = {{1}, DType::f32},
            .saved = {{{pairs, 2}, DType::f32, Keep::always}},
            .flops = 4.0 * static_cast<double>(pairs * in[kX].columns())};
  }
  void forward(Queue queue, In in, Tensor& out, Saved& saved) const {
    run_forward(queue, in, in[kRows].shape().count(), in[kLabels].data<std::int32_t>(), saved.data(0), out.data<float>());
  }
  void backward(Queue queue, In in, const Saved& saved, const Tensor& dout, Gradients& d) const {
    on(queue, in[kX].dtype(), [&]<Device D, class T>() {
      kernels::matching_head_backward<D, T>(queue, {.x = in[kX].view<const T>(),
                                                    .rows = in[kRows].data<std::int32_t>(),
                                                    .labels = in[kLabels].data<std::int32_t>(),
                                                    .weight = in[kWeight].view<const T>(),
                                                    .pairs = in[kRows].shape().count(),
                                                    .logits = saved.data(0),
                                                    .dloss = dout.data<float>(),
                                                    .dx = d.to<T>(kX),
                                                    .dweight = d.parameter(kWeight),
                                                    .dbias = d.parameter(kBias)});
    });
  }
};

struct Logits {
  static constexpr const char* name = "matching_logits";
  Plan plan(In in) const {
    const std::int64_t pairs = check_and_count(name, in, Wanted::logits);
    return {.output = {{pairs, 2}, DType::f32}, .flops = 4.0 * static_cast<double>(pairs * in[kX].columns())};
  }
  void forward(Queue queue, In in, Tensor& out, Saved&) const { run_forward(queue, in, out.rows(), nullptr, out.data<float>(), nullptr); }
  void backward(Queue, In, const Saved&, const Tensor&, Gradients&) const {
    throw ShapeError("matching_logits: wanted no gradient, got a request for one");
  }
};

}  // namespace

Tensor matching_head(const MatchingHead& a) { return apply(Matching{}, {a.x, a.weight, a.bias, a.rows, a.labels}); }
Tensor matching_logits(const MatchingHead& a) {
  return apply(Logits{}, {a.x.detached(), a.weight.detached(), a.bias.detached(), a.rows, Tensor()});
}

}  // namespace lc
