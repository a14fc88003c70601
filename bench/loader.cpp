// Times what a training step reads: opening corpora, their shuffled order, batches packed from mapped tokens, with and without masking.
// usage: loader CORPUS… [--batch 256] [--batches 4000] [--evict]     one thread; memory is this process's
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <ctime>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "engine/hdf5/server.h"
#include "engine/machine.h"
#include "train/dataset.h"
#include "train/order.h"
#include "train/step.h"

namespace {

using Json = nlohmann::ordered_json;

double cpu() {  // seconds this process has computed, beside which others may have run
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

Json memory() {  // MiB
  Json mib;
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    for (const char* key : {"VmHWM", "VmRSS", "RssAnon", "RssFile"}) {
      if (line.starts_with(std::string(key) + ":")) mib[key] = std::stol(line.substr(line.find(':') + 1)) / 1024;
    }
  }
  return mib;
}

// What lies in the page cache of these files leaves it, where nobody has it mapped.
void evict(const lc::Dataset& data) {
  for (const lc::Corpus& corpus : data.corpora()) {
    const int file = ::open(corpus.path().c_str(), O_RDONLY);
    if (file < 0) continue;
    posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    ::close(file);
  }
}

struct Loader {
  const lc::Dataset& data;
  lc::SampleOrder& order;
  int max_tokens = 2048;
  bool ahead = false;
  std::int64_t next = 0, tokens = 0;

  lc::Sequences batch() {
    const lc::Samples samples = order.batch(next++);
    if (ahead) data.read_soon(order.batch(next));
    lc::Sequences packed = data.sequences(samples, max_tokens, lc::Pass::view_a);
    tokens += std::ssize(packed.ids);
    return packed;
  }
};

}  // namespace

int main(int argc, char** argv) {
  if (const std::optional<int> code = lc::serve_files(argc, argv)) return *code;
  CLI::App app("corpora to batches");
  std::vector<std::filesystem::path> files;
  std::int64_t batch_size = 256, batches = 4000;
  int most_kinds = 3;
  bool cold = false, ahead = false;
  app.add_option("CORPUS", files, "corpora, or folders of them")->required();
  app.add_option("--batch", batch_size, "cells of a batch");
  app.add_option("--batches", batches, "of each kind");
  app.add_option("--kinds", most_kinds, "the first of: packed, masked, all that a step takes");
  app.add_flag("--evict", cold, "drop the files from the page cache before each kind");
  app.add_flag("--ahead", ahead, "ask for the next batch's tokens while one is packed, as training does");
  CLI11_PARSE(app, argc, argv);

  const double start = lc::seconds_now();
  const lc::Dataset data(files);
  const double opened = lc::seconds_now();
  const auto length = [&](std::int64_t cell) { return data.length(cell, 2048); };
  lc::SampleOrder order(lc::CellSet(data.cells(), [](std::int64_t) { return true; }), {0, 1, batch_size, length});
  const double ordered = lc::seconds_now();
  order.batch(0);  // looks for the longest
  const double begun = lc::seconds_now();
  std::uint64_t tokens = 0;
  for (const lc::Corpus& corpus : data.corpora()) tokens += corpus.tokens();
  Json result = {{"cells", data.cells()},
                 {"tokens", tokens},
                 {"corpora", data.corpora().size()},
                 {"batch", batch_size},
                 {"instruction_set", lc::instruction_set()},
                 {"evicted", cold},
                 {"ahead", ahead},
                 {"open_s", opened - start},
                 {"order_s", ordered - opened},
                 {"first_batch_s", begun - ordered},
                 {"memory_at_start_MiB", memory()}};

  Loader loader{data, order, 2048, ahead};
  const lc::MaskRule rule{0.15f, lc::chance_of_step(0, 1, 0), data.vocabulary().size()};
  std::int64_t masked = 0;
  const std::map<std::string, std::function<void()>> kinds = {
      {"1 packed", [&] { loader.batch(); }},
      {"2 packed and masked", [&] { masked += std::ssize(lc::mask_genes(loader.batch(), rule).rows); }},
      {"3 as a step of stage 1 takes them: three passes, masked, rows sorted by id", [&] {
         const lc::Sequences a = loader.batch(), b = a;
         const lc::MaskedSequences c = lc::mask_genes(a, rule);
         for (const lc::Sequences* s : {&a, &b, &c.sequences}) upload(*s, lc::Purpose::training);
       }}};
  for (const auto& [name, run] : kinds) {
    if (name[0] - '0' > most_kinds) break;
    if (cold) evict(data);
    const double begin = lc::seconds_now(), begin_cpu = cpu();
    const std::int64_t before = loader.tokens;
    for (std::int64_t i = 0; i < batches; ++i) run();
    const double seconds = lc::seconds_now() - begin, cpu_seconds = cpu() - begin_cpu, cells = static_cast<double>(batches * batch_size);
    result["kinds"][name.substr(2)] = {{"cells_per_s", std::llround(cells / seconds)},
                                       {"cells_per_cpu_s", std::llround(cells / cpu_seconds)},
                                       {"tokens_per_s", std::llround(static_cast<double>(loader.tokens - before) / seconds)}};
  }
  result["memory_MiB"] = memory();
  fmt::print("{}\n", result.dump(1));
  return loader.tokens + masked > 0 ? 0 : 1;
}
