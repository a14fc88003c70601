#include "engine/nn.h"

namespace lc {

Parameter Module::declare(const Scope& scope, const std::vector<std::string>& names, const Shape& each, ParameterKind kind, Initial initial,
                          std::int64_t row_granule) {
  std::vector<std::string> full;
  for (const std::string& n : names) full.push_back(scope.child(n).name);
  const Parameter p = scope.arena->declare(full, each, kind, initial, row_granule);
  leaves_.push_back(p.leaf());
  return p;
}

void Module::adopt(const Module& child) { leaves_.insert(leaves_.end(), child.leaves_.begin(), child.leaves_.end()); }

Linear::Linear(const Scope& scope, std::int64_t in, std::int64_t out, float deviation)
    : weight(declare(scope, {"weight"}, Shape{out, in}, ParameterKind::matrix, {0, deviation})),
      bias(declare(scope, {"bias"}, Shape{out}, ParameterKind::vector, {})) {}

Linear::Linear(const Scope& scope, const std::vector<std::string>& parts, std::int64_t in, std::int64_t out_each, float deviation) {
  std::vector<std::string> weights, biases;
  for (const std::string& part : parts) weights.push_back(part + ".weight"), biases.push_back(part + ".bias");
  weight = declare(scope, weights, Shape{out_each, in}, ParameterKind::matrix, {0, deviation});
  bias = declare(scope, biases, Shape{out_each}, ParameterKind::vector, {});
}

LayerNorm::LayerNorm(const Scope& scope, std::int64_t width, float epsilon)
    : weight(declare(scope, {"weight"}, Shape{width}, ParameterKind::vector, {1, 0})),
      bias(declare(scope, {"bias"}, Shape{width}, ParameterKind::vector, {})),
      eps(epsilon) {}

Embedding::Embedding(const Scope& scope, std::int64_t rows, std::int64_t width, float deviation)
    : weight(declare(scope, {"weight"}, Shape{rows, width}, ParameterKind::matrix, {0, deviation}, Parameters::kRowGranule)) {}

}  // namespace lc
