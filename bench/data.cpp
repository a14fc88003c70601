// Times a file's way to tokens: reading and deciding what is counts, blocks of cells, rank-value encoding.   usage: data IN.h5ad GENES.tsv
// [--repeats 5]
#include <fmt/format.h>
#include <omp.h>

#include <CLI/CLI.hpp>

#include "engine/hdf5/server.h"
#include "engine/machine.h"
#include "models/langcell/data/cell_tokens.h"
#include "tools/anndata/counts.h"

int main(int argc, char** argv) {
  if (const std::optional<int> code = lc::serve_files(argc, argv)) return *code;
  CLI::App app("counts to tokens");
  std::string file, genes;
  int repeats = 5;
  app.add_option("IN", file)->required();
  app.add_option("GENES", genes)->required();
  app.add_option("--repeats", repeats);
  CLI11_PARSE(app, argc, argv);
  const lc::GeneVocabulary vocabulary = lc::GeneVocabulary::read(genes);
  double open_best = 1e30, read_best = 1e30, encode_best = 1e30;
  std::uint64_t cells = 0;
  std::int64_t tokens = 0;
  for (int r = 0; r < repeats; ++r) {
    const double start = lc::seconds_now();
    const lc::CountMatrix counts = lc::open_counts(file);
    const double opened = lc::seconds_now();
    const lc::CellTokenizer tokenizer(vocabulary, counts.gene_ids(), 2047);
    double reading = 0, encoding = 0;
    tokens = 0, cells = counts.n_cells();
    for (std::uint64_t begin = 0; begin < cells; begin += 1024) {
      const double a = lc::seconds_now();
      const lc::CsrBlock block = counts.read_rows(begin, std::min(cells, begin + 1024));
      const double b = lc::seconds_now();
      tokens += std::ssize(tokenizer.encode(block.view()).tokens);
      reading += b - a, encoding += lc::seconds_now() - b;
    }
    open_best = std::min(open_best, opened - start), read_best = std::min(read_best, reading),
    encode_best = std::min(encode_best, encoding);
  }
  const auto n = static_cast<double>(cells);
  fmt::print("{}: {} cells, {} tokens, best of {}, {} threads\n", file, cells, tokens, repeats, omp_get_max_threads());
  fmt::print(
      "open and survey every value {:>8.1f} ms {:>10.0f} cells/s\nread again in blocks         {:>8.1f} ms {:>10.0f} cells/s\nrank-value "
      "encoding          {:>8.1f} ms {:>10.0f} cells/s\nall                          {:>8.1f} ms {:>10.0f} cells/s\n",
      open_best * 1e3, n / open_best, read_best * 1e3, n / read_best, encode_best * 1e3, n / encode_best,
      (open_best + read_best + encode_best) * 1e3, n / (open_best + read_best + encode_best));
  return 0;
}
