// The arena: master weights, the low-precision copy the model computes with, gradients and moments as flat buffers; a parameter is a view.
// Gradients accumulate straight into the float arena. Slices begin at multiples of 256 bytes, in the order of declaration (= forward).
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/tensor.h"

namespace lc {

enum class ParameterKind : std::uint8_t {
  matrix,  // storage type; decays
  vector   // bias, LayerNorm: always float, no decay
};

struct Initial {  // N(mean, deviation), keyed by seed and name
  float mean = 0, deviation = 0;
};

// A handle that is bound when the arena is allocated.
class Parameter {
 public:
  Parameter() = default;
  const Tensor& operator*() const { return *tensor_; }
  operator const Tensor&() const { return *tensor_; }
  const std::shared_ptr<Leaf>& leaf() const { return leaf_; }
  explicit operator bool() const { return tensor_ != nullptr; }

 private:
  friend class Parameters;
  std::shared_ptr<Tensor> tensor_;
  std::shared_ptr<Leaf> leaf_;
};

// Numbers of the arena where the host can read them: themselves, or a copy from the device.
struct HostNumbers {
  std::span<const float> values;
  std::vector<float> copy;
};

// One tensor under the name the checkpoint uses; several may lie in one Parameter (query, key, value).
struct NamedParameter {
  std::string name;
  Shape shape;              // without padding rows
  std::int64_t offset = 0;  // elements from the start of the arena
  ParameterKind kind = ParameterKind::matrix;
  Initial initial;
  bool frozen = false;
  std::size_t owner = 0;  // the Parameter it lies in
};

struct ParameterPlace {  // of a Parameter in the arena, in elements, padding included
  const Leaf* leaf = nullptr;
  std::int64_t begin = 0, end = 0;
  bool trained = false;  // some of it
};

class Parameters {
 public:
  static constexpr std::int64_t kSlice = 64;       // floats: 256 bytes
  static constexpr std::int64_t kRowGranule = 64;  // vocabulary rows are padded to this in memory

  // Names share one tensor, stacked by rows in the given order; rows of the whole are padded with zeros to a multiple of `row_granule`.
  Parameter declare(const std::vector<std::string>& names, const Shape& each, ParameterKind kind, Initial initial,
                    std::int64_t row_granule = 1);
  void allocate(DType storage, const Queue& queue = {});  // once, after all declarations; weights are zero
  void initialize(std::uint64_t seed);                    // every named tensor from its Initial, by Philox keyed on seed and name
  void allocate_training();                               // gradients and moments, zero

  // Freezes what any glob ('*' matches any characters) matches and thaws the rest; returns the globs that match nothing.
  std::vector<std::string> freeze(const std::vector<std::string>& globs);

  void attach(Tape* tape);  // parameters not wholly frozen record on this tape; null: off
  void zero_gradients();
  void refresh_storage();  // storage copy = round(master)

  const std::vector<NamedParameter>& named() const { return named_; }
  const NamedParameter* find(const std::string& name) const;
  std::vector<ParameterPlace> places() const;  // in the order of the arena
  // Where a tensor's numbers lie, on the queue's device: the host reads and writes them with numbers() and put().
  float* master(const NamedParameter& p) const { return master_.get() + p.offset; }
  float* gradient(const NamedParameter& p) const { return gradients_.get() + p.offset; }
  float* moment1(const NamedParameter& p) const { return moment1_.get() + p.offset; }
  float* moment2(const NamedParameter& p) const { return moment2_.get() + p.offset; }
  HostNumbers numbers(const float* at, const NamedParameter& p) const;
  void put(float* at, const NamedParameter& p,
           const std::function<void(std::span<float>)>& fill) const;  // fill writes, or changes, all of it
  std::span<float> gradients() const { return {gradients_.get(), static_cast<std::size_t>(gradients_ ? size_ : 0)}; }
  void zero_moments();
  std::int64_t size() const { return size_; }  // elements of the arena, padding included
  std::vector<kernels::Segment> segments(float decay) const;
  void adamw(float lr, float decay, std::int64_t step, const Tensor& clip_factor);  // one pass over the arena
  void gradient_norm(float clip, const Tensor& norm, const Tensor& clip_factor) const;
  DType storage() const { return storage_type_; }
  const Queue& queue() const { return queue_; }

 private:
  struct Owner {
    Parameter parameter;
    Shape shape;  // padded
    std::int64_t offset = 0;
    ParameterKind kind = ParameterKind::matrix;
  };
  std::vector<Owner> owners_;
  std::vector<NamedParameter> named_;
  std::int64_t size_ = 0;
  DType storage_type_ = DType::f32;
  Queue queue_;
  std::shared_ptr<float> master_, gradients_, moment1_, moment2_;
  std::shared_ptr<bf16> storage_;
};

}  // namespace lc
