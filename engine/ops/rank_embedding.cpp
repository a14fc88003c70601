// rank_embedding: a token's word, its place in its sequence and the type row, normalised; gradients of the table go through rows sorted by
// id.
#include <fmt/format.h>

#include "engine/errors.h"
#include "engine/op.h"
#include "engine/ops.h"

namespace lc {
namespace {

enum Input : int { kTable, kPositions, kType, kWeight, kShift, kIds, kById };

struct RankEmbedding {
  static constexpr const char* name = "rank_embedding";
  float eps;
  Dropout dropout;
  PackingPtr packing;

  void check(In in) const {
    const Tensor &table = in[kTable], &positions = in[kPositions], &type = in[kType], &ids = in[kIds], &by_id = in[kById];
    require_storage_type(name, table);
    if (!packing) throw ShapeError("rank_embedding: wanted a packing, got none");
    const std::int64_t tokens = packing->tokens(), columns = table.columns();
    const auto refuse = [](const char* what, const std::string& wanted, const Tensor& got) {
      throw ShapeError(fmt::format("rank_embedding: wanted {} {}, got {} {}", what, wanted, got.shape().text(), name_of(got.dtype())));
    };
    if (table.shape().rank() != 2) refuse("a table", "(V, C)", table);
    if (positions.shape().rank() != 2 || positions.columns() != columns || positions.rows() < packing->longest() ||
        positions.dtype() != table.dtype()) {
      refuse("positions", fmt::format("(≥ {}, {}) {}", packing->longest(), columns, name_of(table.dtype())), positions);
    }
    if (type && (type.columns() != columns || type.rows() < 1 || type.dtype() != table.dtype())) {
      refuse("a type table", fmt::format("(≥ 1, {}) {}", columns, name_of(table.dtype())), type);
    }
    for (const int i : {kWeight, kShift}) {
      if (in[i].shape() != Shape{columns} || in[i].dtype() != DType::f32)
        refuse("LayerNorm vectors", fmt::format("({}) f32", columns), in[i]);
    }
    if (ids.shape() != Shape{tokens} || ids.dtype() != DType::i32) refuse("ids", fmt::format("({}) i32", tokens), ids);
    const bool sorted = by_id && by_id.shape() == Shape{tokens} && by_id.dtype() == DType::i32;
    if ((by_id || table.tape()) && !sorted) refuse("rows in the order of ids", fmt::format("({}) i32", tokens), by_id);
  }

  Plan plan(In in) const {
    check(in);
    const std::int64_t tokens = packing->tokens(), columns = in[kTable].columns();
    const DType type = in[kTable].dtype();
    return {.output = {{tokens, columns}, type},
            .saved = {{{tokens, columns}, type}, {{tokens, 2}, DType::f32}},
            .backward_workspace = kernels::rank_embedding_workspace(tokens, columns),
            .unsaved_inputs = {kTable, kPositions, kType, kShift},
            .flops = 10.0 * static_cast<double>(tokens * columns)};
  }

  void forward(Queue queue, In in, Tensor& out, Saved& saved) const {
    on(queue, out.dtype(), [&]<Device D, class T>() {
      kernels::rank_embedding_forward<D, T>(queue, {.ids = in[kIds].data<std::int32_t>(),
                                                    .packing = packing->view(),
                                                    .table = in[kTable].view<const T>(),
                                                    .positions = in[kPositions].view<const T>(),
                                                    .type = in[kType] ? in[kType].data<T>() : nullptr,
                                                    .norm = {in[kWeight].data<float>(), in[kShift].data<float>(), eps},
                                                    .dropout = dropout,
                                                    .sum = saved.tensors[0].view<T>(),
                                                    .statistics = saved.data(1),
                                                    .y = out.view<T>()});
    });
  }

  void backward(Queue queue, In in, const Saved& saved, const Tensor& dout, Gradients& d) const {
    on(queue, dout.dtype(), [&]<Device D, class T>() {
      kernels::rank_embedding_backward<D, T>(queue, {.ids = in[kIds].data<std::int32_t>(),
                                                     .by_id = in[kById] ? in[kById].data<std::int32_t>() : nullptr,
                                                     .packing = packing->view(),
                                                     .dy = dout.view<const T>(),
                                                     .sum = saved.tensors[0].view<const T>(),
                                                     .statistics = saved.data(1),
                                                     .norm = {in[kWeight].data<float>(), nullptr, eps},
                                                     .dropout = dropout,
                                                     .dtable = d.parameter(kTable),
                                                     .dpositions = d.parameter(kPositions),
                                                     .dtype = d.parameter(kType),
                                                     .dweight = d.parameter(kWeight),
                                                     .dshift = d.parameter(kShift),
                                                     .workspace = saved.work()});
    });
  }
};

}  // namespace

Tensor embed(const Embed& a) {
  return apply(RankEmbedding{a.eps, a.dropout, a.packing}, {a.table, a.positions, a.type, a.weight, a.shift, a.ids, a.by_id});
}

}  // namespace lc
