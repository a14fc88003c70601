#include <fmt/format.h>
#include <fmt/ranges.h>

#include "engine/errors.h"
#include "train/rates.h"

namespace lc {

const std::vector<std::string>& gpu_names() {
  static const std::vector<std::string> names = {"h100", "h200", "a100"};
  return names;
}

Machine gpu(const std::string& name) {
  throw UsageError(fmt::format("--gpu: no rates are known for '{}'; choose one of {}", name, fmt::join(gpu_names(), ", ")));
}

}  // namespace lc
