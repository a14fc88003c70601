// infonce: symmetric contrastive loss over the pairs of a batch; who counts as equal, and who leaves the denominator, comes as groups.
#include <fmt/format.h>

#include <cmath>
#include <unordered_map>

#include "engine/errors.h"
#include "engine/op.h"
#include "engine/ops.h"

namespace lc {
namespace {

// The groups numbered 0 … G−1 in the order in which they first appear.
struct Numbered {
  std::vector<std::int32_t> group, size;
};
Numbered number(const ContrastGroups& groups, std::int64_t pairs) {
  if (!groups.group.empty() && static_cast<std::int64_t>(groups.group.size()) != pairs) {
    throw ShapeError(fmt::format("infonce: wanted a group for each of {} pairs, got {}", pairs, groups.group.size()));
  }
  Numbered n;
  std::unordered_map<std::int32_t, std::int32_t> number_of;
  for (std::int64_t i = 0; i < pairs; ++i) {
    const auto fresh = static_cast<std::int32_t>(n.size.size());
    const std::int32_t g =
        groups.group.empty() ? fresh : number_of.try_emplace(groups.group[static_cast<std::size_t>(i)], fresh).first->second;
    if (g == fresh) n.size.push_back(0);
    ++n.size[static_cast<std::size_t>(g)];
    n.group.push_back(g);
  }
  if (!groups.unrelated.empty() && groups.unrelated.size() != n.size.size() * n.size.size()) {
    throw ShapeError(
        fmt::format("infonce: wanted unrelated as {} × {}, got {} entries", n.size.size(), n.size.size(), groups.unrelated.size()));
  }
  return n;
}

struct InfoNce {
  static constexpr const char* name = "infonce";
  Tensor group, size, unrelated;
  SamePairs same;

  kernels::InfoNceGroups view() const {
    return {group.data<std::int32_t>(), size.data<std::int32_t>(), unrelated ? unrelated.data<std::uint8_t>() : nullptr,
            static_cast<std::int32_t>(size.columns()), same};
  }

  Plan plan(In in) const {
    const Tensor &a = in[0], &b = in[1], &scale = in[2];
    require_storage_type(name, a);
    if (a.shape().rank() != 2 || b.shape() != a.shape() || b.dtype() != a.dtype() || scale.shape() != Shape{1} ||
        scale.dtype() != DType::f32) {
      throw ShapeError(fmt::format("infonce: wanted a and b (N, P) of one type and scale (1) f32, got {} {}, {} {}, {} {}",
                                   a.shape().text(), name_of(a.dtype()), b.shape().text(), name_of(b.dtype()), scale.shape().text(),
                                   name_of(scale.dtype())));
    }
    const double n = static_cast<double>(a.rows());
    return {.output = {{1}, DType::f32},
            .saved = {{{a.rows()}, DType::f32, Keep::always}, {{a.rows()}, DType::f32, Keep::always}},
            .flops = 4 * n * n * static_cast<double>(a.columns())};
  }

  void forward(Queue queue, In in, Tensor& out, Saved& saved) const {
    on(queue, in[0].dtype(), [&]<Device D, class T>() {
      kernels::infonce_forward<D, T>(queue, {.a = in[0].view<const T>(),
                                             .b = in[1].view<const T>(),
                                             .scale = in[2].data<float>(),
                                             .groups = view(),
                                             .lse_a = saved.data(0),
                                             .lse_b = saved.data(1),
                                             .loss = out.data<float>()});
    });
  }

  void backward(Queue queue, In in, const Saved& saved, const Tensor& dout, Gradients& d) const {
    on(queue, in[0].dtype(), [&]<Device D, class T>() {
      kernels::infonce_backward<D, T>(queue, {.a = in[0].view<const T>(),
                                              .b = in[1].view<const T>(),
                                              .scale = in[2].data<float>(),
                                              .groups = view(),
                                              .lse_a = saved.data(0),
                                              .lse_b = saved.data(1),
                                              .dloss = dout.data<float>(),
                                              .da = d.to<T>(0),
                                              .db = d.to<T>(1),
                                              .dscale = d.parameter(2)});
    });
  }
};

}  // namespace

Tensor infonce(const Tensor& a, const Tensor& b, const Tensor& scale, const ContrastGroups& groups) {
  const Numbered n = number(groups, a.rows());
  const Queue& queue = a.queue();
  const auto count = static_cast<std::int64_t>(n.size.size());
  const Tensor unrelated =
      groups.unrelated.empty() ? Tensor() : Tensor::from(std::span<const std::uint8_t>(groups.unrelated), {count, count}, queue);
  return apply(InfoNce{Tensor::from(n.group, queue), Tensor::from(n.size, queue), unrelated, groups.same}, {a, b, scale});
}

// A target shared by n pairs has entropy ln n; merge has it in one direction only, where the other chooses among groups.
double target_entropy(const ContrastGroups& groups, std::int64_t pairs) {
  if (groups.same == SamePairs::ignore) return 0;
  double sum = 0;
  for (const std::int32_t n : number(groups, pairs).size) sum += n * std::log(static_cast<double>(n));
  return groups.same == SamePairs::merge ? sum / 2 : sum;
}

}  // namespace lc
