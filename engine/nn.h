// A module is a struct of parameters under the names the checkpoint uses, and of modules. There is no virtual forward.
#pragma once
#include <string>
#include <vector>

#include "engine/ops.h"
#include "engine/parameters.h"

namespace lc {

// Where a module declares its parameters: the arena and the name so far.
struct Scope {
  Parameters* arena = nullptr;
  std::string name;
  Scope child(const std::string& part) const { return {arena, name.empty() ? part : name + "." + part}; }
  Scope child(const std::string& part, int number) const { return child(part + "." + std::to_string(number)); }
};

class Module {
 public:
  const std::vector<std::shared_ptr<Leaf>>& leaves() const { return leaves_; }  // what a recompute segment over this module declares

 protected:
  Parameter declare(const Scope& scope, const std::vector<std::string>& names, const Shape& each, ParameterKind kind, Initial initial,
                    std::int64_t row_granule = 1);
  void adopt(const Module& child);

 private:
  std::vector<std::shared_ptr<Leaf>> leaves_;
};

struct Linear : Module {  // weight (out, in), bias (out)
  Parameter weight, bias;
  Linear() = default;
  Linear(const Scope& scope, std::int64_t in, std::int64_t out, float deviation);
  // Several layers of one input as one product; `parts` are their names below the scope.
  Linear(const Scope& scope, const std::vector<std::string>& parts, std::int64_t in, std::int64_t out_each, float deviation);
  Tensor operator()(const Tensor& x, Activation activation = Activation::none) const { return linear(x, weight, bias, activation); }
  Tensor without_bias(const Tensor& x) const { return linear(x, weight, Tensor()); }  // for the bias that residual_norm adds
};

struct LayerNorm : Module {  // weight, bias (C)
  Parameter weight, bias;
  float eps = 1e-12f;
  LayerNorm() = default;
  LayerNorm(const Scope& scope, std::int64_t width, float eps);
  Tensor operator()(const Tensor& x) const { return layer_norm(x, weight, bias, eps); }
};

struct Embedding : Module {  // weight (rows, C), rows padded in memory
  Parameter weight;
  Embedding() = default;
  Embedding(const Scope& scope, std::int64_t rows, std::int64_t width, float deviation);
};

}  // namespace lc
