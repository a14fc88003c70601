// bf16 products on CPUs with tile instructions, through oneDNN's matmul: bf16 in, float out, one thread per primitive.
// Shapes are few: a short tile is copied into a full one filled up with zeros, so that oneDNN's cache of compiled code stays small.
#include "kernels/cpu/matmul_amx.h"

#include <cstring>
#include <oneapi/dnnl/dnnl.hpp>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/onednn.h"
#include "kernels/cpu/scratch.h"

namespace lc::kernels {
namespace {
using dnnl::memory;

constexpr std::int64_t kRowTile = 256;     // rows of y or dx at a time
constexpr std::int64_t kTokenTile = 1024;  // tokens of one step of the weight gradient
constexpr std::int64_t kWeightTile = 256;  // rows of dw at a time

struct AmxWeights;
struct AmxLeft;
struct AmxRight;
struct AmxResult;
struct AmxRoom;

const dnnl::engine& engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

enum class Side : std::uint8_t { plain, transposed };  // how the stored rows enter the product

struct Shape {
  std::int64_t m, k, n;
  std::int64_t stride_a, stride_c;
  Side a = Side::plain;
  Into into = Into::write;
};

// oneDNN's C++ face throws its own error: the same exceptions as require_onednn's instead.
template <class F>
void translate_errors(F&& f) {
  try {
    f();
  } catch (const dnnl::error& e) {
    require_onednn(e.status);
  }
}

// c (m, n) float = or += a (m, k) bf16 · b (k, n) bf16. some primitives fix their threading when made, some when run.
class Product {
 public:
  Product(const Shape& s, const Rows<const bf16>& b, Side side_b) {
    translate_errors([&] { make(s, b, side_b); });
  }

  void operator()(const bf16* a, const bf16* b, float* c) const {
    translate_errors([&] { run(a, b, c); });
  }

 private:
  void make(const Shape& s, const Rows<const bf16>& b, Side side_b) {
    const OneThread one;
    const memory::dims at_a = s.a == Side::plain ? memory::dims{s.stride_a, 1} : memory::dims{1, s.stride_a};
    const memory::dims at_b = side_b == Side::plain ? memory::dims{b.stride, 1} : memory::dims{1, b.stride};
    const memory::desc a({s.m, s.k}, memory::data_type::bf16, at_a), c({s.m, s.n}, memory::data_type::f32, memory::dims{s.stride_c, 1});
    const memory::desc given({s.k, s.n}, memory::data_type::bf16, at_b), any({s.k, s.n}, memory::data_type::bf16, memory::format_tag::any);
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (s.into == Into::add) {
      dnnl::post_ops sum;
      sum.append_sum(1.0f);
      attributes.set_post_ops(sum);
    }
    const bool fixed = b.data != nullptr;  // weights are laid out once, as oneDNN likes them; tokens are taken as they lie
    description_ = dnnl::matmul::primitive_desc(dnnl::matmul::desc(a, fixed ? any : given, c), attributes, engine());
    product_ = dnnl::matmul(description_);
    if (fixed) lay_out(memory(given, engine(), const_cast<bf16*>(b.data)));
  }

  void run(const bf16* a, const bf16* b, float* c) const {
    const OneThread one;
    dnnl::stream stream(engine());
    void* room = scratch<AmxRoom>(description_.scratchpad_desc().get_size() / sizeof(float) + 16);
    const void* weights = weights_ ? weights_ : b;
    product_.execute(stream, {{DNNL_ARG_SRC, memory(description_.src_desc(), engine(), const_cast<bf16*>(a))},
                              {DNNL_ARG_WEIGHTS, memory(description_.weights_desc(), engine(), const_cast<void*>(weights))},
                              {DNNL_ARG_DST, memory(description_.dst_desc(), engine(), c)},
                              {DNNL_ARG_SCRATCHPAD, memory(description_.scratchpad_desc(), engine(), room)}});
  }

  void lay_out(memory given) {
    void* room = scratch<AmxWeights>(description_.weights_desc().get_size() / sizeof(float) + 16);
    memory laid_out(description_.weights_desc(), engine(), room);
    dnnl::stream stream(engine());
    dnnl::reorder(given, laid_out).execute(stream, given, laid_out);
    weights_ = room;
  }
  dnnl::matmul::primitive_desc description_;
  dnnl::matmul product_;
  const void* weights_ = nullptr;
};

// Rows [begin, end) as a full tile: the stored rows, or a copy filled up with zeros.
template <class Purpose>
Rows<const bf16> full_tile(const Rows<const bf16>& m, std::int64_t begin, std::int64_t end, std::int64_t tile) {
  if (end - begin == tile) return {m.row(begin), tile, m.columns, m.stride};
  bf16* copy = reinterpret_cast<bf16*>(scratch<Purpose>(static_cast<std::size_t>(tile * m.stride / 2 + 1)));
  std::memset(static_cast<void*>(copy), 0, static_cast<std::size_t>(tile * m.stride) * sizeof(bf16));
  for (std::int64_t i = begin; i < end; ++i)
    std::memcpy(copy + (i - begin) * m.stride, m.row(i), static_cast<std::size_t>(m.columns) * sizeof(bf16));
  return {copy, tile, m.columns, m.stride};
}

// rows × weights, tile by tile, each handed to finish(result, first row) while in cache.
template <class F>
void row_products(const Rows<const bf16>& left, const Rows<const bf16>& weights, Side side, F&& finish) {
  if (left.rows == 0) return;
  const std::int64_t n = side == Side::plain ? weights.columns : weights.rows;
  const Product product({kRowTile, left.columns, n, left.stride, n}, weights, side);
  parallel_for(left.rows, kRowTile, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    const Rows<float> result{scratch<AmxResult>(static_cast<std::size_t>(kRowTile * n)), end - begin, n, n};
    product(full_tile<AmxLeft>(left, begin, end, kRowTile).data, nullptr, result.data);
    finish(result, begin);
  });
}
}  // namespace

void linear_forward_amx(const LinearForward<bf16>& a, FinishTile finish) {
  row_products(a.x, a.w, Side::transposed, [&](const Rows<float>& result, std::int64_t row) {
    const Rows<bf16> y{a.y.row(row), result.rows, a.y.columns, a.y.stride};
    finish(result, a.bias, a.activation, y,
           a.pre.data ? Rows<bf16>{a.pre.row(row), result.rows, a.pre.columns, a.pre.stride} : Rows<bf16>{});
  });
}

void linear_input_gradient_amx(const LinearInputGradient<bf16>& a, RoundInto round_into) {
  row_products(a.dy, a.w, Side::plain, [&](const Rows<float>& result, std::int64_t row) {
    round_into(result, {a.dx.to.row(row), result.rows, a.dx.to.columns, a.dx.to.stride}, a.dx.into);
  });
}

void linear_weight_gradient_amx(const LinearWeightGradient<bf16>& a) {
  const std::int64_t rows = a.dy.columns, columns = a.x.columns, tokens = a.dy.rows;
  const auto product = [&](std::int64_t m) {
    return Product({m, kTokenTile, columns, a.dy.stride, columns, Side::transposed, Into::add}, {nullptr, kTokenTile, columns, a.x.stride},
                   Side::plain);
  };
  if (tokens == 0) return;
  const Product whole = product(std::min(kWeightTile, rows)), rest = product(rows % kWeightTile ? rows % kWeightTile : kWeightTile);
  for (std::int64_t t = 0; t < tokens; t += kTokenTile) {
    const std::int64_t end = std::min(tokens, t + kTokenTile);
    const auto dy = full_tile<AmxLeft>(a.dy, t, end, kTokenTile), x = full_tile<AmxRight>(a.x, t, end, kTokenTile);
    parallel_for(rows, kWeightTile, [&](std::int64_t begin, std::int64_t n_end, std::int64_t) {
      (n_end - begin == kWeightTile ? whole : rest)(dy.data + begin, x.data, a.dw + begin * columns);
    });
  }
}

}  // namespace lc::kernels
