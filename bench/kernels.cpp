// Times the operators on the cases that the tests judge: forward, and forward with backward; beside each the share of this machine's own
// peak, measured first.   usage: kernels [--filter TEXT] [--device cpu|cuda] [--json FILE] [--seconds S] [--bf16] [--cold] [--small]
//                                       [--vs cudnn|torch]
#include <fmt/format.h>
#include <omp.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "engine/atomic_file.h"
#include "engine/errors.h"
#include "engine/machine.h"
#include "engine/memory.h"
#include "engine/tape.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cuda/device.h"
#include "tests/words.h"

namespace {

using lc::Tensor;
// Returns when the device has done all that was asked of it: it reads a number back.
void wait() {
  if (lc::test::test_queue().device == lc::Device::cuda) lc::test::ids_of({0}).to_host<std::int32_t>();
}

// On a GPU several runs are timed as one, so that asking for them overlaps their work as it does in a step.
template <class F>
double median_seconds(double budget, F&& f) {
  const int at_once = lc::test::test_queue().device == lc::Device::cuda ? 20 : 1;
  f(), wait();
  std::vector<double> times;
  for (const double start = lc::seconds_now(); times.size() < 3 || (lc::seconds_now() - start < budget && times.size() < 1000);) {
    const double t = lc::seconds_now();
    for (int i = 0; i < at_once; ++i) f();
    wait();
    times.push_back((lc::seconds_now() - t) / at_once);
  }
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

// One run at a time by the device's own clock, each after L2 has been filled with something else.
template <class F>
double median_seconds_cold(double budget, F&& f) {
  const lc::Queue& queue = lc::test::test_queue();
  const Tensor other = Tensor::zeros({std::int64_t{64} << 20}, lc::DType::f32, queue);
  std::vector<double> times;
  for (const double start = lc::seconds_now(); times.size() < 5 || (lc::seconds_now() - start < budget && times.size() < 200);) {
    other.fill_zero();
    times.push_back(lc::cuda::seconds_of(queue, f));
  }
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

// Random numbers as the tests draw them, the same million again and again: what time and power depend on.
Tensor random(const lc::Shape& shape, lc::DType type, std::uint64_t seed, double scale = 1) {
  constexpr std::int64_t kDrawn = (1 << 20) + 7;
  if (shape.count() <= kDrawn) return lc::test::random_tensor(shape, type, seed, scale);
  const lc::Queue queue = lc::test::test_queue();
  const std::vector<float> drawn = lc::test::random_tensor({kDrawn}, lc::DType::f32, seed, scale).to_host<float>();
  std::vector<float> all;
  all.reserve(static_cast<std::size_t>(shape.count()));
  for (auto left = static_cast<std::size_t>(shape.count()); left > 0; left = static_cast<std::size_t>(shape.count()) - all.size()) {
    all.insert(all.end(), drawn.begin(), drawn.begin() + static_cast<std::ptrdiff_t>(std::min(left, drawn.size())));
  }
  return Tensor::from<float>(all, shape, queue).to(type);
}

// Of a GPU: a large product by the library (or our own kernel where it is missing), and a copy of 1 GiB.
lc::kernels::MachinePeak measure_cuda_peak(bool bf16) {
  constexpr std::int64_t kSize = 8192, kFloats = std::int64_t{1} << 28;
  const lc::Queue& queue = lc::test::test_queue();
  const lc::DType storage = bf16 ? lc::DType::bf16 : lc::DType::f32;
  const Tensor x = random({kSize, kSize}, storage, 1), w = random({kSize, kSize}, storage, 2),
               from = Tensor::zeros({1, kFloats}, lc::DType::f32, queue), to = Tensor::empty({1, kFloats}, lc::DType::f32, queue);
  const double product = median_seconds(0.3, [&] { lc::linear(x, w, {}, lc::Activation::none); });
  const lc::kernels::Convert<float, float> copy{from.view<const float>(), to.view<float>()};
  const double copied = median_seconds(0.2, [&] { lc::on(queue, [&]<lc::Device D>() { lc::kernels::convert<D>(queue, copy); }); });
  return {2.0 * kSize * kSize * kSize / product / 1e9, 8.0 * kFloats / copied / 1e9};
}

// Runs bench/peers/torch_kernels.py, which prints others' times for the same cases; in a bundle it lies beside bin/.
void run_peers(const std::string& vs) {
  namespace fs = std::filesystem;
  fs::path script = fs::read_symlink("/proc/self/exe").parent_path().parent_path() / "torch_kernels.py";
  if (!fs::exists(script)) script = fs::path(LC_SOURCE_DIR) / "bench/peers/torch_kernels.py";
  fmt::print("\nbeside them, in microseconds: {}\n", script.string());
  std::fflush(stdout);
  const std::string command = fmt::format("python3 '{}' --vs {}", script.string(), vs);
  if (std::system(command.c_str()) != 0) throw lc::ResourceError("the peers did not run: they want python3 with PyTorch for CUDA");
}

struct Timed {
  double forward = 0, both = 0, cold = 0;
};

Timed time_case(const lc::test::OpCase& c, lc::DType storage, double budget, bool cold) {
  std::vector<Tensor> plain;
  for (std::size_t i = 0; i < c.inputs.size(); ++i) {
    const auto& input = c.inputs[i];
    plain.push_back(random(input.shape, input.role == lc::test::Role::vector ? lc::DType::f32 : storage, 77 + i, input.scale));
  }
  Timed t;
  if (c.prepare) {
    const std::function<void()> kernel = c.prepare(plain);
    t.forward = median_seconds(budget, kernel);
    if (cold) t.cold = median_seconds_cold(budget, kernel);
    return t;
  }
  Tensor out;
  t.forward = median_seconds(budget, [&] { out = c.run(plain); });
  if (cold) t.cold = median_seconds_cold(budget, [&] { out = c.run(plain); });
  if (std::ranges::none_of(c.inputs, &lc::test::Input::differentiable)) return t;
  const Tensor seed = random(out.shape(), out.dtype(), 5);
  t.both = median_seconds(budget, [&] {
    lc::Tape tape;
    std::vector<Tensor> in;
    for (std::size_t i = 0; i < plain.size(); ++i) in.push_back(c.inputs[i].differentiable ? tape.watch(plain[i]) : plain[i]);
    const Tensor y = c.run(in);
    if (y.tape()) tape.backward({{y, seed}});
  });
  return t;
}

}  // namespace

int main(int argc, char** argv) try {
  CLI::App app("operator benchmarks on the tests' cases");
  std::string filter, json_file, device = "cpu";
  double seconds = 0.2;
  std::string vs;
  bool bf16 = false, small = false, cold = false;
  app.add_option("--filter", filter, "only cases whose 'word / name' contains this");
  app.add_option("--device", device, "cpu or cuda")->check(CLI::IsMember({"cpu", "cuda"}));
  app.add_option("--json", json_file, "write the table as JSON");
  app.add_option("--seconds", seconds, "per measurement");
  app.add_flag("--bf16", bf16, "bf16 storage instead of float");
  app.add_flag("--cold", cold, "on a GPU also forward with nothing of it in L2");
  app.add_flag("--small", small, "also the cases that are too small to say anything about speed");
  app.add_option("--vs", vs, "on a GPU, others' kernels in the same run: cudnn or torch")->check(CLI::IsMember({"cudnn", "torch"}));
  CLI11_PARSE(app, argc, argv);

  const bool cpu = device == "cpu";
  if (!cpu) {
    lc::test::test_queue() = {lc::Device::cuda};
    lc::require_device(lc::test::test_queue());
  }
  const lc::kernels::MachinePeak peak = cpu ? lc::kernels::measure_peak() : measure_cuda_peak(bf16);
  if (cpu) {
    fmt::print("{}, {} threads: {:.0f} GFLOP/s (float FMA loop), {:.1f} GB/s (memcpy, read + written)\n", lc::kernels::instruction_set(),
               omp_get_max_threads(), peak.gflops, peak.gbytes);
  } else {
    fmt::print("{}: {:.0f} TFLOP/s (a product of 8192 × 8192 × 8192), {:.2f} TB/s (copy of 1 GiB, read + written)\n", lc::devices()[1],
               peak.gflops / 1e3, peak.gbytes / 1e3);
  }
  fmt::print("{:<18} {:<44} {:>10} {:>9} {:>8} {:>6} {:>11} {:>9} {:>8}\n", "word", "case", "forward us", "GFLOP/s", "GB/s", "% peak",
             "backward us", "GFLOP/s", "GB/s");
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const lc::test::OpCase& c : lc::test::all_cases()) {
    if ((c.word + " / " + c.name).find(filter) == std::string::npos || (!small && !c.benchmark_only)) continue;
    const Timed t = time_case(c, bf16 ? lc::DType::bf16 : lc::DType::f32, seconds, cold && !cpu);
    const double width = bf16 ? 2 : 4, bytes = width * c.moved + c.bytes, backward = t.both - t.forward,
                 backward_flops = c.backward_flops > 0 ? c.backward_flops : 2 * c.flops;
    const double gflops = c.flops / t.forward / 1e9, gbytes = bytes / t.forward / 1e9,
                 share = std::max(gflops / peak.gflops, gbytes / peak.gbytes);
    fmt::print("{:<18} {:<44} {:>10.1f} {:>9.1f} {:>8.1f} {:>6.0f}", c.word, c.name, t.forward * 1e6, gflops, gbytes, share * 100);
    if (t.both > 0) {
      fmt::print(" {:>11.1f} {:>9.1f} {:>8.1f}", backward * 1e6, backward_flops / backward / 1e9,
                 width * c.moved_backward / backward / 1e9);
    }
    fmt::print("{}\n", t.cold > 0 ? fmt::format("   cold {:.1f} us", t.cold * 1e6) : "");
    rows.push_back(
        {{"word", c.word},
         {"case", c.name},
         {"device", device},
         {"storage", bf16 ? "bf16" : "f32"},
         {"forward_s", t.forward},
         {"forward_cold_s", t.cold > 0 ? nlohmann::ordered_json(t.cold) : nlohmann::ordered_json()},
         {"backward_gflops", t.both > 0 ? nlohmann::ordered_json(backward_flops / backward / 1e9) : nlohmann::ordered_json()},
         {"forward_backward_s", t.both > 0 ? nlohmann::ordered_json(t.both) : nlohmann::ordered_json()},
         {"gflops", gflops},
         {"gbytes", gbytes},
         {"backward_gbytes", t.both > 0 ? nlohmann::ordered_json(width * c.moved_backward / backward / 1e9) : nlohmann::ordered_json()},
         {"share_of_peak", share}});
  }
  if (!json_file.empty()) {
    lc::write_file(json_file, nlohmann::ordered_json{{"instruction_set", lc::kernels::instruction_set()},
                                                     {"threads", omp_get_max_threads()},
                                                     {"peak_gflops", peak.gflops},
                                                     {"peak_gbytes", peak.gbytes},
                                                     {"cases", rows}}
                                      .dump(1) +
                                  "\n");
  }
  if (!vs.empty() && !cpu) run_peers(vs);
  return 0;
} catch (const std::exception& e) {
  fmt::print(stderr, "kernels: {}\n", e.what());
  return 5;
}
