#include "models/langcell/pretrained/geneformer_dictionaries.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <cstring>
#include <unordered_map>

#include "engine/errors.h"
#include "models/langcell/json_file.h"
#include "models/langcell/pretrained/pickle.h"

namespace lc {
namespace {

namespace fs = std::filesystem;
using Value = Pickle::Value;
using Kind = Pickle::Kind;

constexpr size_t kLargestDictionary = size_t{64} << 20;
constexpr std::array<std::string_view, 4> kGlobals{"numpy.core.multiarray scalar", "numpy._core.multiarray scalar", "numpy dtype",
                                                   "collections OrderedDict"};

[[noreturn]] void refuse(const fs::path& file, std::string_view what) {
  throw ModelError(fmt::format("{}: {}; give the dictionaries of Geneformer V1", file.string(), what));
}

template <class T>
double as_double(const std::string& bytes) {
  T value{};
  std::memcpy(&value, bytes.data(), sizeof(T));
  return static_cast<double>(value);
}

// What dtype's BUILD says of the byte order: (version, '<' …).
bool is_little_endian(const Value& dtype) {
  const Value* state = dtype.state;
  return state && state->is(Kind::tuple) && state->items.size() > 1 && state->items[1]->is(Kind::text) && state->items[1]->text == "<";
}

// A plain number, or numpy's scalar(dtype(code), bytes).
double number_of(const fs::path& file, const std::string& key, const Value& v) {
  if (v.is(Kind::integer)) return static_cast<double>(v.integer);
  if (v.is(Kind::real)) return v.real;
  const bool scalar = (v.calls(kGlobals[0]) || v.calls(kGlobals[1])) && v.items.size() == 3 && v.items[1]->calls(kGlobals[2]) &&
                      v.items[1]->items.size() > 1 && v.items[2]->is(Kind::bytes);
  if (scalar && v.items[1]->items[1]->is(Kind::text) && is_little_endian(*v.items[1])) {
    const std::string &code = v.items[1]->items[1]->text, &bytes = v.items[2]->text;
    const auto is = [&](std::string_view wanted, size_t size) { return code == wanted && bytes.size() == size; };
    if (is("i8", 8)) return as_double<std::int64_t>(bytes);
    if (is("i4", 4)) return as_double<std::int32_t>(bytes);
    if (is("i2", 2)) return as_double<std::int16_t>(bytes);
    if (is("f8", 8)) return as_double<double>(bytes);
    if (is("f4", 4)) return as_double<float>(bytes);
  }
  refuse(file, fmt::format("the value of '{}' is no number (a {})", key, Pickle::name_of(v.kind)));
}

std::unordered_map<std::string, double> read_dictionary(const fs::path& file) {
  const std::string bytes = as_model_error([&] { return read_file(file, kLargestDictionary); });
  const Pickle pickle(bytes, kGlobals, file.string());
  const Value& top = pickle.top();
  if (!top.is(Kind::dictionary)) refuse(file, fmt::format("wanted a dictionary, found a {}", Pickle::name_of(top.kind)));
  std::unordered_map<std::string, double> numbers;
  for (size_t i = 0; i < top.items.size(); i += 2) {
    const Value& key = *top.items[i];
    if (!key.is(Kind::text) || key.text.empty() || key.text.size() > 64) refuse(file, "a key is no Ensembl id");
    if (!numbers.emplace(key.text, number_of(file, key.text, *top.items[i + 1])).second)
      refuse(file, fmt::format("'{}' occurs twice", key.text));
  }
  return numbers;
}

}  // namespace

GeneVocabulary read_geneformer_dictionaries(const fs::path& tokens, const fs::path& medians) {
  auto token_of = read_dictionary(tokens);
  const auto median_of = read_dictionary(medians);
  for (const auto& [special, id] : {std::pair{"<pad>", 0.0}, {"<mask>", 1.0}}) {
    const auto at = token_of.find(special);
    if (at == token_of.end() || at->second != id) refuse(tokens, fmt::format("wanted token {} for {}", id, special));
    token_of.erase(at);
  }
  std::vector<Gene> genes(token_of.size());
  for (const auto& [id, token] : token_of) {
    const double place = token - GeneVocabulary::first_gene;
    if (!(place >= 0 && place < static_cast<double>(genes.size())) || place != std::floor(place))
      refuse(tokens, fmt::format("{} has token {}, wanted {} to {}", id, token, GeneVocabulary::first_gene, genes.size() + 1));
    Gene& gene = genes[static_cast<size_t>(place)];
    if (!gene.ensembl_id.empty()) refuse(tokens, fmt::format("{} and {} have the same token {}", gene.ensembl_id, id, token));
    const auto median = median_of.find(id);
    if (median == median_of.end()) refuse(medians, fmt::format("has no median for {}", id));
    gene = {id, "", median->second};
  }
  return as_model_error([&] { return GeneVocabulary(std::move(genes)); });
}

}  // namespace lc
