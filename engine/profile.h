// What a user may switch on to look inside a run (--profile, --check-finite). Observation only: it never changes a number.
#pragma once
#include <chrono>
#include <span>
#include <string>
#include <vector>

#include "engine/tensor.h"

namespace lc {

enum class Direction : std::uint8_t { forward, backward };

struct Inspection {
  bool profile = false, check_finite = false;
};
Inspection& inspection();

// Adds time, bytes and operations of one operator call to the table, when profiling is on; then a GPU is waited for before and after each.
class Measured {
 public:
  Measured(const char* name, Direction direction, std::span<const Tensor> in, const Tensor& out, double flops);
  Measured(const char* name, const Queue& queue, double bytes, double flops);  // work that is no operator's: forward
  ~Measured();
  Measured(const Measured&) = delete;
  Measured& operator=(const Measured&) = delete;

 private:
  void start();
  const char* name_;
  Direction direction_;
  Queue queue_;
  double bytes_ = 0, flops_ = 0;
  std::chrono::steady_clock::time_point start_;
};

struct ProfileRow {
  std::string name;
  Direction direction = Direction::forward;
  double calls = 0, seconds = 0, bytes = 0, flops = 0;
};
std::vector<ProfileRow> profile_rows();  // by name; seconds of an imagined queue mean nothing

// Per operator: calls, ms, GFLOP/s, GB/s, share of the larger of the two peaks (0: not known, no share).
std::string profile_table(double peak_gflops, double peak_gbytes);
void reset_profile();
void check_finite(const char* name, Direction direction, const Tensor& x);  // NumericalError naming the operator

}  // namespace lc
