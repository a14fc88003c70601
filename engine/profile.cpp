#include "engine/profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "engine/errors.h"
#include "kernels/cuda/device.h"

namespace lc {
namespace {

std::map<std::pair<std::string, Direction>, ProfileRow>& table() {
  static std::map<std::pair<std::string, Direction>, ProfileRow> rows;
  return rows;
}
const char* direction_name(Direction d) { return d == Direction::forward ? "forward" : "backward"; }
double bytes_of(const Tensor& t) { return static_cast<double>(t.shape().count()) * static_cast<double>(size_of(t.dtype())); }

}  // namespace

Inspection& inspection() {
  static Inspection one;
  return one;
}

Measured::Measured(const char* name, Direction direction, std::span<const Tensor> in, const Tensor& out, double flops)
    : name_(name), direction_(direction), queue_(out.queue()), flops_(flops) {
  if (!inspection().profile) return;
  for (const Tensor& t : in) bytes_ += bytes_of(t);
  bytes_ = (bytes_ + bytes_of(out)) * (direction == Direction::backward ? 2 : 1);
  start();
}

Measured::Measured(const char* name, const Queue& queue, double bytes, double flops)
    : name_(name), direction_(Direction::forward), queue_(queue), bytes_(bytes), flops_(flops) {
  if (inspection().profile) start();
}

void Measured::start() {
  if (queue_.device == Device::cuda && !queue_.imagined()) cuda::wait(queue_);
  start_ = std::chrono::steady_clock::now();
}

Measured::~Measured() {
  if (!inspection().profile) return;
  if (queue_.device == Device::cuda && !queue_.imagined()) cuda::wait(queue_);
  ProfileRow& row = table()[{name_, direction_}];
  row.name = name_, row.direction = direction_;
  ++row.calls;
  row.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  row.bytes += bytes_, row.flops += flops_;
}

std::vector<ProfileRow> profile_rows() {
  std::vector<ProfileRow> rows;
  for (const auto& [key, row] : table()) rows.push_back(row);
  return rows;
}

std::string profile_table(double peak_gflops, double peak_gbytes) {
  std::vector<std::pair<std::pair<std::string, Direction>, ProfileRow>> rows(table().begin(), table().end());
  std::sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  std::string text =
      fmt::format("{:<18} {:<9} {:>8} {:>10} {:>9} {:>8} {:>7}\n", "operator", "pass", "calls", "ms", "GFLOP/s", "GB/s", "% peak");
  for (const auto& [key, row] : rows) {
    const double gflops = row.flops / row.seconds / 1e9, gbytes = row.bytes / row.seconds / 1e9;
    const std::string share =
        peak_gflops > 0 ? fmt::format("{:.0f}", 100 * std::max(gflops / peak_gflops, gbytes / peak_gbytes)) : std::string("-");
    text += fmt::format("{:<18} {:<9} {:>8} {:>10.1f} {:>9.1f} {:>8.1f} {:>7}\n", key.first, direction_name(key.second), row.calls,
                        row.seconds * 1e3, gflops, gbytes, share);
  }
  return text;
}

void reset_profile() { table().clear(); }

void check_finite(const char* name, Direction direction, const Tensor& x) {
  if (!x || (x.dtype() != DType::f32 && x.dtype() != DType::bf16)) return;
  const std::vector<float> values = x.to(DType::f32).to_host<float>();
  const auto bad = std::find_if(values.begin(), values.end(), [](float v) { return !std::isfinite(v); });
  if (bad == values.end()) return;
  const std::int64_t at = bad - values.begin();
  throw NumericalError(fmt::format("{}: {} gave {} in row {}, column {} of {}; it is the first operator with a number that is not finite",
                                   name, direction_name(direction), *bad, at / x.columns(), at % x.columns(), x.shape().text()));
}

}  // namespace lc
