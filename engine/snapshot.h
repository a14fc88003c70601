// The numbers of an arena at one moment, on the host: training goes on while a checkpoint is written from them.
#pragma once
#include <array>
#include <memory>
#include <span>

#include "engine/parameters.h"

namespace lc {

class ParameterSnapshot {
 public:
  // Memory for all that can be trained: three times the arena, on the host. Asked for early and written to, so that a run does not find out
  // late that there is none; take() asks if nobody did. ResourceError.
  void reserve(const Parameters& parameters);
  static std::size_t bytes(const Parameters& parameters) { return 3 * static_cast<std::size_t>(parameters.size()) * sizeof(float); }
  void take(const Parameters& parameters);  // waits for the device. The same parameters each time

  std::span<const float> master(const NamedParameter& p) const { return at(0, p); }
  std::span<const float> moment1(const NamedParameter& p) const { return at(1, p); }
  std::span<const float> moment2(const NamedParameter& p) const { return at(2, p); }

 private:
  std::span<const float> at(std::size_t which, const NamedParameter& p) const {
    return {reinterpret_cast<const float*>(copies_[which].get()) + p.offset, static_cast<std::size_t>(p.shape.count())};
  }
  std::array<std::shared_ptr<std::byte>, 3> copies_;  // master weights, first and second moments
};

}  // namespace lc
