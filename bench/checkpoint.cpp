// Times what a checkpoint costs: the copy of the numbers, for which a step waits, and the writing beside the steps that follow.
// usage: checkpoint FOLDER [--preset langcell] [--device cpu] [--times 3]      JSON on standard output; FOLDER is on the disk to be
// measured
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <nlohmann/json.hpp>

#include "engine/hdf5/server.h"
#include "engine/machine.h"
#include "engine/memory.h"
#include "train/checkpoint_writer.h"

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double seconds(const auto& work) {
  const auto start = Clock::now();
  work();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::uintmax_t bytes_in(const fs::path& folder) {
  std::uintmax_t sum = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) sum += entry.is_regular_file() ? entry.file_size() : 0;
  return sum;
}

void run(const fs::path& folder, const std::string& size, const std::string& device, int times) {
  using namespace lc;
  ModelFacts facts;
  std::vector<Gene> genes;
  for (int i = 0; i < 25426; ++i) genes.push_back({fmt::format("ENSG{:011}", i), "", 1});
  facts.genes = GeneVocabulary(std::move(genes));
  std::vector<std::string> pieces(WordPiece::specials.begin(), WordPiece::specials.end());
  for (int i = 0; pieces.size() < 30522; ++i) pieces.push_back(fmt::format("piece{}", i));
  facts.word_piece = WordPiece(std::move(pieces));
  const Queue queue = queue_named(device, "--device");
  LangCell model(preset(size, facts.genes.size(), facts.word_piece.size()), LangCell::Parts{}, DType::f32, queue);
  model.parameters().allocate_training();
  model.parameters().initialize(0);
  CheckpointWriter writer(folder / "checkpoints", 2);
  writer.reserve(model);
  nlohmann::ordered_json rounds = nlohmann::json::array();
  for (int i = 0; i < times; ++i) {
    const double copy = seconds([&] { writer.begin({model, facts, {2, i + 1, 0, 1}, "", {}}); });
    const double write = seconds([&] { writer.wait(); });
    rounds.push_back({{"copy_s", copy}, {"write_s", write}});
  }
  fmt::print("{}\n", nlohmann::ordered_json{{"preset", size},
                                            {"parameters", model.parameters().size()},
                                            {"device", name_of(queue)},
                                            {"instruction_set", instruction_set()},
                                            {"bytes", bytes_in(folder / "checkpoints" / checkpoint_name(2, times))},
                                            {"rounds", rounds}}
                         .dump());
  fs::remove_all(folder / "checkpoints");
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("What a checkpoint costs");
  fs::path folder;
  std::string size = "langcell", device = "cpu";
  int times = 3;
  app.add_option("FOLDER", folder, "where to write")->required();
  app.add_option("--preset", size)->capture_default_str();
  app.add_option("--device", device)->capture_default_str();
  app.add_option("--times", times)->check(CLI::Range(1, 100))->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  run(folder, size, device, times);
}
