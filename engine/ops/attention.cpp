// softmax(q kᵀ / √D) v per head over packed sequences: self, cross, and many query sequences of one key sequence.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/errors.h"
#include "engine/op.h"
#include "engine/ops.h"

namespace lc {
namespace {

template <class... A>
[[noreturn]] void refuse(fmt::format_string<A...> text, A&&... values) {
  throw ShapeError("attention: wanted " + fmt::format(text, std::forward<A>(values)...));
}
double length(const PackingPtr& packing, std::int64_t b) {
  const std::int32_t* const begin = packing->offsets().data() + b;
  return begin[1] - begin[0];
}

struct AttentionOp {
  static constexpr const char* name = "attention";
  int heads;
  PackingPtr queries, keys;
  Dropout dropout;

  bool self() const { return queries == keys; }  // then every sequence reads itself, whatever kv_of says
  bool each_its_own() const { return self() || queries->kv_of().empty(); }
  std::int64_t key_sequence(std::int64_t b) const { return each_its_own() ? b : queries->kv_of()[static_cast<std::size_t>(b)]; }
  kernels::PackingView query_view() const { return self() ? queries->own_view() : queries->view(); }
  float scale(const Tensor& q) const {
    const std::int64_t head_width = q.columns() / heads;
    return static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_width)));
  }

  void check_packings(const Tensor& q, const Tensor& k) const {
    if (!queries || !keys) refuse("a packing of the queries and one of the keys, got none");
    if (queries->tokens() != q.rows() || keys->tokens() != k.rows()) {
      refuse("packings of {} and {} tokens, got {} and {}", q.rows(), k.rows(), queries->tokens(), keys->tokens());
    }
    if (each_its_own() && queries->sequences() != keys->sequences()) {
      refuse("kv_of or as many key as query sequences ({}), got {}", queries->sequences(), keys->sequences());
    }
    for (std::int64_t b = 0; b < queries->sequences(); ++b) {
      if (key_sequence(b) < 0 || key_sequence(b) >= keys->sequences()) {
        refuse("kv_of in [0, {}), got {} for sequence {}", keys->sequences(), key_sequence(b), b);
      }
    }
  }

  void check_dropout() const {  // what the counter of numeric.h has room for
    constexpr std::int64_t kLongest = 1 << 18;
    const std::int64_t longest = std::max(queries->longest(), keys->longest());
    if (!(dropout.rate >= 0 && dropout.rate < 1)) refuse("a dropout rate in [0, 1), got {}", dropout.rate);
    if (dropout.rate > 0 && (heads > 256 || dropout.site >= 1u << 23 || longest > kLongest)) {
      refuse("at most 256 heads, sites below 2^23 and sequences up to 2^18 with dropout, got {}, {} and {}", heads, dropout.site, longest);
    }
  }

  Plan plan(In in) const {
    const Tensor &q = in[0], &k = in[1], &v = in[2];
    require_storage_type(name, q);
    if (k.dtype() != q.dtype() || v.dtype() != q.dtype()) {
      refuse("q, k, v of one type, got {}, {}, {}", name_of(q.dtype()), name_of(k.dtype()), name_of(v.dtype()));
    }
    const std::int64_t width = heads > 0 && q.columns() % heads == 0 ? q.columns() / heads : 0;
    if (width != 32 && width != 64 && width != 128) refuse("heads 32, 64 or 128 wide, got {} columns for {} heads", q.columns(), heads);
    if (q.shape().rank() != 2 || k.shape() != v.shape() || k.shape().rank() != 2 || k.columns() != q.columns()) {
      refuse("q (Tq, C), k and v (Tk, C), got {}, {}, {}", q.shape().text(), k.shape().text(), v.shape().text());
    }
    check_packings(q, k);
    check_dropout();
    double scores = 0;
    for (std::int64_t b = 0; b < queries->sequences(); ++b) scores += length(queries, b) * length(keys, key_sequence(b));
    Plan p;
    p.output = {q.shape(), q.dtype()};
    p.saved = {{Shape{heads, q.rows()}, DType::f32}};  // lse
    p.saves_output = true;
    p.backward_workspace = kernels::attention_workspace(heads, q.rows());
    p.flops = 4 * scores * static_cast<double>(q.columns());
    return p;
  }

  void forward(Queue queue, In in, Tensor& out, Saved& saved) const {
    on(queue, in[0].dtype(), [&]<Device D, class T>() {
      kernels::AttentionForward<T> a;
      a.q = in[0].view<const T>(), a.k = in[1].view<const T>(), a.v = in[2].view<const T>();
      a.heads = heads, a.scale = scale(in[0]), a.dropout = dropout;
      a.queries = query_view(), a.keys = keys->own_view();
      a.o = out.view<T>(), a.lse = saved.data(0);
      kernels::attention_forward<D>(queue, a);
    });
  }

  void backward(Queue queue, In in, const Saved& saved, const Tensor& dout, Gradients& d) const {
    on(queue, in[0].dtype(), [&]<Device D, class T>() {
      kernels::AttentionBackward<T> a;
      a.q = in[0].view<const T>(), a.k = in[1].view<const T>(), a.v = in[2].view<const T>();
      a.o = saved.output.view<const T>(), a.d_o = dout.view<const T>();
      a.heads = heads, a.scale = scale(in[0]), a.dropout = dropout;
      a.queries = query_view(), a.keys = keys->own_view();
      a.lse = saved.data(0), a.workspace = saved.work();
      a.dq = d.to<T>(0), a.dk = d.to<T>(1), a.dv = d.to<T>(2);
      kernels::attention_backward<D>(queue, a);
    });
  }
};

}  // namespace

Tensor attention(const Attention& a) { return apply(AttentionOp{a.heads, a.queries, a.keys, a.dropout}, {a.q, a.k, a.v}); }

}  // namespace lc
