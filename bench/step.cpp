// Times the cell tower, forward and backward, on the real token lengths of a corpus: length-grouped batches, random upstream gradient.
// With --texts N instead zero-shot labelling of the same cells by N texts, host and device together, as `langcell annotate` does it.
// usage: step CORPUS [--preset small] [--tokens 512] [--cells 64] [--batch 16] [--repeats 5] [--dropout] [--forward] [--json FILE]
//             [--device cpu|cuda] [--bf16] [--texts N [--text-tokens 96]]
#include <fmt/format.h>
#include <omp.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>

#include "engine/atomic_file.h"
#include "engine/hdf5/server.h"
#include "engine/machine.h"
#include "engine/memory.h"
#include "engine/tape.h"
#include "kernels/cpu/dispatch.h"
#include "models/langcell/annotate.h"
#include "models/langcell/data/batches.h"
#include "models/langcell/data/corpus.h"
#include "models/langcell/langcell.h"

namespace {

// The cells that bench/peers/torch_step.py takes too: spread evenly over the lengths of the corpus, grouped by length.
std::vector<std::vector<std::int64_t>> length_groups(const lc::Corpus& corpus, std::int64_t cells, std::int64_t batch) {
  const auto length = [&](std::int64_t c) { return corpus.length(static_cast<std::uint64_t>(c)); };
  std::vector<std::int64_t> order;
  for (std::int64_t c = 0; c < static_cast<std::int64_t>(corpus.cells()); ++c) {
    if (length(c) > 0) order.push_back(c);
  }
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return length(a) < length(b); });
  std::vector<std::vector<std::int64_t>> batches;
  for (std::int64_t i = 0; i < cells; ++i) {
    if (i % batch == 0) batches.emplace_back();
    batches.back().push_back(
        order[static_cast<std::size_t>((static_cast<double>(i) + 0.5) * static_cast<double>(order.size()) / static_cast<double>(cells))]);
  }
  return batches;
}

// Texts of random words.
std::vector<std::vector<lc::TokenList>> random_texts(int texts, int tokens, std::int32_t vocabulary) {
  std::vector<std::vector<lc::TokenList>> labels;
  std::uint32_t drawn = 0;
  for (int t = 0; t < texts; ++t) {
    lc::TokenList text;
    for (int i = 0; i < tokens; ++i) {
      const std::uint32_t word = lc::philox<10>({{drawn++, 0, 0, 0}}, {{7, 0}}).word[0];
      text.push_back(static_cast<std::int32_t>(word % static_cast<std::uint32_t>(vocabulary)));
    }
    labels.push_back({text});
  }
  return labels;
}

}  // namespace

int main(int argc, char** argv) {
  if (const std::optional<int> code = lc::serve_files(argc, argv)) return *code;
  CLI::App app("one step of the cell tower on real cells");
  std::string corpus_path, preset = "small", json_file, device = "cpu";
  int tokens = 512, repeats = 5, texts = 0, text_tokens = 96;
  std::int64_t cells = 64, batch = 16;
  bool dropout = false, forward_only = false, bf16 = false;
  app.add_option("CORPUS", corpus_path)->required();
  app.add_option("--preset", preset);
  app.add_option("--tokens", tokens);
  app.add_option("--cells", cells);
  app.add_option("--batch", batch);
  app.add_option("--repeats", repeats);
  app.add_flag("--dropout", dropout, "as the model trains: 0.02 on attention weights and hidden states");
  app.add_flag("--forward", forward_only);
  app.add_option("--texts", texts, "label the cells by this many texts");
  app.add_option("--text-tokens", text_tokens, "of each text");
  app.add_option("--json", json_file);
  app.add_option("--device", device, "auto, cpu, cuda or cuda:N");
  app.add_flag("--bf16", bf16, "bf16 storage instead of float");
  CLI11_PARSE(app, argc, argv);

  const lc::Queue queue = lc::queue_named(device, "--device");
  const lc::Corpus corpus = lc::Corpus::open(corpus_path);
  constexpr std::int64_t kWords = 1000;
  const auto text_part = texts > 0 ? lc::LangCell::Part::required : lc::LangCell::Part::absent;
  lc::LangCell model(lc::preset(preset, corpus.vocabulary().size(), kWords), {text_part, lc::LangCell::Part::absent},
                     bf16 ? lc::DType::bf16 : lc::DType::f32, queue);
  model.parameters().initialize(0);
  if (texts == 0) model.parameters().allocate_training();
  std::vector<lc::Tokens> batches;
  std::vector<lc::TokenList> cell_tokens;
  std::int64_t count = 0, total = 0;
  for (const auto& which : length_groups(corpus, cells, batch)) {
    lc::Sequences s;
    for (const std::int64_t c : which) {
      std::vector<std::int32_t> genes(static_cast<std::size_t>(tokens - 1));
      genes.resize(static_cast<std::size_t>(corpus.copy_tokens(static_cast<std::uint64_t>(c), genes)));
      cell_tokens.push_back(lc::cell_sequence(genes, corpus.vocabulary().cls(), tokens));
      s.add(cell_tokens.back(), lc::sequence_key(lc::Pass::view_a, static_cast<std::uint64_t>(c)));
    }
    count += std::ssize(which), total += std::ssize(s.ids);
    batches.push_back(lc::upload(s, lc::Purpose::training, queue));
  }
  std::optional<lc::Annotator> annotator;
  if (texts > 0) annotator.emplace(model, random_texts(texts, text_tokens, kWords), lc::AnnotateOptions{});
  double best = 1e30;
  for (int r = 0; r <= repeats; ++r) {  // the first pass warms memory and is not counted
    const double start = lc::seconds_now();
    if (annotator) (*annotator)(cell_tokens);
    for (const lc::Tokens& b : texts > 0 ? std::vector<lc::Tokens>() : batches) {
      lc::PassOptions pass;
      if (dropout) pass.chance = lc::chance_of_step(0, 1, static_cast<std::uint32_t>(r));
      lc::Tape tape;
      if (!forward_only) {
        model.parameters().zero_gradients();
        model.parameters().attach(&tape);
      }
      const lc::Tensor hidden = model.encode_cells(b, pass);
      if (!forward_only) tape.backward({{hidden, hidden.detached()}});
      model.parameters().attach(nullptr);
    }
    if (queue.device == lc::Device::cuda) lc::Tensor::scalar(0, queue).item();  // waits until all is done
    if (r > 0) best = std::min(best, lc::seconds_now() - start);
  }
  const std::string what = texts > 0      ? fmt::format("zero-shot by {} texts of {} tokens", texts, text_tokens)
                           : forward_only ? "forward"
                                          : "forward + backward";
  const double rate = static_cast<double>(count) / best;
  const std::string where = queue.device == lc::Device::cuda
                                ? lc::devices()[static_cast<std::size_t>(queue.index) + 1]
                                : fmt::format("{}, {} threads", lc::kernels::instruction_set(), omp_get_max_threads());
  fmt::print(
      "{} at {} tokens, {} cells ({} tokens), batch {}, {}, {}, dropout {}: {:.2f} cells/s, {:.0f} tokens/s; best of {}; {}; peak memory "
      "{:.2f} GiB\n",
      preset, tokens, count, total, batch, bf16 ? "bf16" : "f32", what, dropout ? "0.02" : "off", rate, static_cast<double>(total) / best,
      repeats, where, static_cast<double>(lc::memory_use(queue).peak) / 1073741824.0);
  if (!json_file.empty()) {
    lc::write_file(json_file, nlohmann::ordered_json{{"preset", preset},
                                                     {"tokens", tokens},
                                                     {"cells", count},
                                                     {"batch", batch},
                                                     {"dropout", dropout},
                                                     {"what", what},
                                                     {"tokens_per_s", static_cast<double>(total) / best},
                                                     {"cells_per_s", rate},
                                                     {"storage", bf16 ? "bf16" : "f32"},
                                                     {"repeats", repeats},
                                                     {"where", where}}
                                      .dump(1) +
                                  "\n");
  }
  return 0;
}
