// A corpus of made-up cells in which each group prefers genes of its own: enough for a model to learn from in seconds.
#pragma once
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "models/langcell/data/corpus.h"
#include "models/langcell/data/word_piece_builder.h"
#include "models/langcell/langcell.h"
#include "tests/support/test_data.h"
#include "train/dataset.h"
#include "train/step.h"

namespace lc::test {

struct SmallCorpus {
  std::int64_t cells = 64, groups = 4;
  std::int64_t without_text = 0;  // the last cells have none
  int genes = 80, longest = 40;
};

inline std::filesystem::path write_corpus(const std::filesystem::path& path, const SmallCorpus& what) {
  std::vector<Gene> genes;
  for (int i = 0; i < what.genes; ++i) genes.push_back({"ENSG" + std::to_string(1000000 + i), "G" + std::to_string(i), 1.0 + i % 7});
  std::string json = "{";
  for (std::int64_t g = 0; g < what.groups; ++g)
    json += (g ? ", \"type " : "\"type ") + std::to_string(g) + "\": \"a cell of kind number " + std::to_string(g) + " with markers\"";
  CorpusSetup setup;
  setup.vocabulary = GeneVocabulary(genes), setup.texts = Texts::parse(json + "}", "texts"), setup.existing = Existing::replace;
  CorpusWriter writer(path, std::move(setup));
  std::mt19937_64 random(7);
  for (std::int64_t c = 0; c < what.cells; ++c) {
    const auto group = static_cast<std::int32_t>(c % what.groups);
    std::vector<std::int32_t> order;
    for (int i = 0; i < what.genes; ++i) order.push_back(2 + i);
    std::shuffle(order.begin(), order.end(), random);
    std::stable_sort(order.begin(), order.end(),
                     [&](std::int32_t a, std::int32_t b) { return (a % what.groups == group) > (b % what.groups == group); });
    order.resize(5 + random() % static_cast<std::uint64_t>(what.longest - 4));
    const std::string name = "cell" + std::to_string(c);
    writer.append({name, order, c >= what.cells - what.without_text ? -1 : group});
  }
  writer.finish({static_cast<std::uint64_t>(what.cells), static_cast<std::uint64_t>(what.cells), {}, {}}, {}, {});
  return path;
}

struct SmallModel {  // tiny, on the corpus, ready to train
  explicit SmallModel(const std::filesystem::path& corpus, DType storage = DType::f32, const Queue& queue = {}) : data({corpus}) {
    word_piece = build_word_piece(data.texts());
    data.tokenize_texts(word_piece, 64);
    model = std::make_unique<LangCell>(preset("tiny", data.vocabulary().size(), word_piece.size()), LangCell::Parts{}, storage, queue);
    model->parameters().initialize(11);
    model->parameters().allocate_training();
  }
  std::vector<float> weights() const {
    return all([](const Parameters& p, const NamedParameter& n) { return p.master(n); });
  }
  std::vector<float> gradients() const {
    return all([](const Parameters& p, const NamedParameter& n) { return p.gradient(n); });
  }
  Dataset data;
  WordPiece word_piece;
  std::unique_ptr<LangCell> model;

 private:
  template <class Place>
  std::vector<float> all(Place place) const {
    const Parameters& p = model->parameters();
    std::vector<float> numbers;
    for (const NamedParameter& n : p.named()) {
      const HostNumbers host = p.numbers(place(p, n), n);
      numbers.insert(numbers.end(), host.values.begin(), host.values.end());
    }
    return numbers;
  }
};

struct Trained {  // what some steps gave
  std::vector<double> losses;
  std::vector<float> first_gradients, weights;
};

// Every objective of stage 2.
inline StepRule everything(int max_cell_tokens = 41) {
  StepRule r;
  r.stage = 2, r.seed = 3, r.cell_text = 1, r.matching = 1, r.max_cell_tokens = max_cell_tokens;
  return r;
}

// |a - b| / |b|.
inline double relative(const std::vector<float>& a, const std::vector<float>& b) {
  double d = 0, n = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    d += std::pow(static_cast<double>(a[i]) - b[i], 2), n += std::pow(static_cast<double>(b[i]), 2);
  return std::sqrt(d / n);
}

}  // namespace lc::test
