#include "tools/commands/assumed_corpus.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "models/langcell/data/corpus.h"

namespace lc {

// The genes of a cell are those from a place of its own on, so that cells differ; a text is a number of its own and words of two letters.
void write_assumed_corpus(const std::filesystem::path& path, const AssumedCorpus& what) {
  std::vector<Gene> genes;
  for (std::int64_t g = 0; g < what.genes; ++g) genes.push_back({fmt::format("ENSG{:011}", g + 1), fmt::format("G{}", g), 1.0});
  std::string json;
  for (std::int64_t t = 0; t < what.texts; ++t) {
    json += fmt::format(R"({}"type {}": ")", t ? ", " : "", t);
    std::int64_t number = t + 1;
    for (std::int64_t word = 2; word < what.text_tokens; ++word, number /= 7)
      json += fmt::format("{} ", static_cast<char>('a' + number % 7));
    json += "\"";
  }
  CorpusSetup setup;
  setup.vocabulary = GeneVocabulary(genes), setup.existing = Existing::replace;
  if (what.texts > 0) setup.texts = Texts::parse("{" + json + "}", "the assumed texts");
  CorpusWriter writer(path, std::move(setup));
  const std::int64_t length = std::min(what.cell_tokens - 1, what.genes);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(length));
  for (std::int64_t c = 0; c < what.cells; ++c) {
    for (std::int64_t i = 0; i < length; ++i)
      tokens[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(2 + (c * 37 + i) % what.genes);
    const std::string name = fmt::format("cell{}", c);
    writer.append({name, tokens, what.texts > 0 ? static_cast<std::int32_t>(c % what.texts) : -1});
  }
  const auto cells = static_cast<std::uint64_t>(what.cells);
  writer.finish({cells, cells, {}, {}}, {}, {});
}

}  // namespace lc
