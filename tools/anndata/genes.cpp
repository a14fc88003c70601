#include "tools/anndata/genes.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <numeric>
#include <unordered_map>
#include <unordered_set>

#include "engine/errors.h"

namespace lc {

namespace {

constexpr double kEnoughIds = 0.5, kForeignNoted = 0.05;
constexpr double kCountsRefused = 0.30, kCountsWarned = 0.60, kBreadthRefused = 0.05, kBreadthWarned = 0.50;
constexpr size_t kListed = 5;
constexpr std::array kIdColumns = {"gene_ids", "ensembl_id", "gene_id", "feature_id"};
constexpr std::array kNameColumns = {"gene_name",    "feature_name", "gene_names", "gene_symbol",
                                     "gene_symbols", "symbol",       "Symbol",     "gene_short_name"};

// Ensembl's species prefixes of what single-cell files hold; any other ENSxxxG is named by its prefix.
constexpr std::array<std::pair<std::string_view, std::string_view>, 12> kSpecies = {{
    {"ENSMUSG", "mouse (Mus musculus)"},
    {"ENSRNOG", "rat (Rattus norvegicus)"},
    {"ENSDARG", "zebrafish (Danio rerio)"},
    {"ENSMMUG", "macaque (Macaca mulatta)"},
    {"ENSMFAG", "macaque (Macaca fascicularis)"},
    {"ENSSSCG", "pig (Sus scrofa)"},
    {"ENSGALG", "chicken (Gallus gallus)"},
    {"ENSBTAG", "cow (Bos taurus)"},
    {"ENSOCUG", "rabbit (Oryctolagus cuniculus)"},
    {"ENSCAFG", "dog (Canis lupus familiaris)"},
    {"ENSPTRG", "chimpanzee (Pan troglodytes)"},
    {"ENSCJAG", "marmoset (Callithrix jacchus)"},
}};

std::string percent(double share) { return fmt::format("{:.1f} %", 100 * share); }

double share_of_ensembl(const std::vector<std::string>& ids) {
  const auto found = std::count_if(ids.begin(), ids.end(), [](const std::string& id) { return is_ensembl_gene(id); });
  return ids.empty() ? 0.0 : static_cast<double>(found) / static_cast<double>(ids.size());
}

void refuse_other_species(const std::vector<std::string>& ids, const std::string& where, GeneIds& out) {
  std::map<std::string, size_t> species;
  for (const std::string& id : ids)
    if (const auto name = foreign_species(id)) ++species[*name];
  for (const auto& [name, count] : species) {
    const double share = static_cast<double>(count) / static_cast<double>(ids.size());
    if (share >= kEnoughIds)
      throw DataError(fmt::format(
          "{}: the genes are those of {} ({} of the ids), wanted human Ensembl ids (ENSG…); --orthologs F.tsv maps them to human ones",
          where, name, percent(share)));
    if (share >= kForeignNoted)
      out.warnings.push_back(fmt::format("{} of the gene ids are those of {}; they are not known", percent(share), name));
  }
}

class NameTable {  // of the known genes; a name of two ids is of none
 public:
  explicit NameTable(std::span<const KnownGene> known) {
    for (const KnownGene& gene : known) {
      const auto [entry, added] = by_name_.emplace(gene.name, gene.ensembl_id);
      if (!added && entry->second != gene.ensembl_id) twice_.insert(gene.name);
    }
  }
  bool ambiguous(std::string_view name) const { return twice_.count(name) != 0; }
  std::optional<std::string> find(std::string_view name) const {
    const auto entry = by_name_.find(name);
    if (name.empty() || entry == by_name_.end() || ambiguous(name)) return std::nullopt;
    return std::string(entry->second);
  }

 private:
  std::unordered_map<std::string_view, std::string_view> by_name_;
  std::unordered_set<std::string_view> twice_;
};

// Exact names, then aliases, as they are written: upper-casing would turn mouse genes into human ones. A name of two ids is listed and
// stays unknown.
void look_up_names(const std::vector<std::string>& symbols, const GeneRules& rules, GeneIds& out) {
  const NameTable known(rules.known);
  size_t found = 0, by_alias = 0;
  std::vector<std::string> ambiguous;
  for (const std::string& symbol : symbols) {
    std::optional<std::string> id = known.find(symbol);
    if (const std::string* current = id || known.ambiguous(symbol) ? nullptr : rules.renamed.find(symbol)) {
      id = *current;
      ++by_alias;
    } else {
      found += id ? 1 : 0;
    }
    if (known.ambiguous(symbol) || std::binary_search(rules.renamed.ambiguous().begin(), rules.renamed.ambiguous().end(), symbol))
      ambiguous.push_back(symbol);
    out.ids.push_back(id.value_or(symbol));
  }
  out.names = symbols;
  out.notes.push_back(fmt::format("gene names: {} of {} found exactly among the known genes", found, symbols.size()) +
                      (rules.renamed.empty() ? "" : fmt::format(", {} by alias", by_alias)));
  if (!ambiguous.empty()) {
    std::sort(ambiguous.begin(), ambiguous.end());
    ambiguous.erase(std::unique(ambiguous.begin(), ambiguous.end()), ambiguous.end());
    out.warnings.push_back(
        fmt::format("{} gene names stand for several genes and are not used: {}", ambiguous.size(), fmt::join(ambiguous, ", ")));
  }
}

// Orthologs first, then current ids for retired ones.
void replace_ids(const GeneRules& rules, GeneIds& out) {
  size_t orthologs = 0, renamed = 0;
  for (std::string& id : out.ids) {
    if (const std::string* human = rules.orthologs.find(id)) id = *human, ++orthologs;
    if (const std::string* current = rules.renamed.find(id)) renamed += *current != id, id = *current;
  }
  if (!rules.orthologs.empty()) {
    out.cross_species = true;
    out.notes.push_back(fmt::format("orthologs: {} of {} ids mapped one to one by {}; {} with several partners left out", orthologs,
                                    out.ids.size(), rules.orthologs.file(), rules.orthologs.ambiguous().size()));
    out.warnings.push_back("genes of another species are read as their human orthologs: cross-species, not validated");
  }
  if (!rules.renamed.empty()) out.notes.push_back(fmt::format("gene map: {} ids replaced by {}", renamed, rules.renamed.file()));
}

bool is_text(const Frame& var, std::string_view column) {
  const Hdf5 member = var.group().at(column);
  return member.is_group() || member.kind() == H5Kind::text || member.has_attribute("categories");
}

}  // namespace

bool is_ensembl_gene(std::string_view id) {
  id = id.substr(0, id.find('.'));
  if (!id.starts_with("ENS")) return false;
  const size_t digits = id.find_first_of("0123456789");
  if (digits == std::string_view::npos || id.size() - digits < 10 ||
      id.substr(digits).find_first_not_of("0123456789") != std::string_view::npos)
    return false;
  const std::string_view prefix = id.substr(0, digits);  // ENSG, ENSGR (the Y copy in old releases), ENSMUSG
  return prefix == "ENSGR" ||
         (prefix.back() == 'G' && std::all_of(prefix.begin(), prefix.end(), [](char c) { return c >= 'A' && c <= 'Z'; }));
}

std::string without_version(std::string_view id) { return std::string(is_ensembl_gene(id) ? id.substr(0, id.find('.')) : id); }

std::optional<std::string> foreign_species(std::string_view id) {
  if (!is_ensembl_gene(id)) return std::nullopt;
  const std::string_view prefix = id.substr(0, id.find_first_of("0123456789"));
  if (prefix == "ENSG" || prefix == "ENSGR") return std::nullopt;
  for (const auto& [start, name] : kSpecies)
    if (prefix == start) return std::string(name);
  return fmt::format("another species ({}…)", prefix);
}

GeneTable gene_table_of(const Frame& var) {
  GeneTable table{var.group().where(), var.group().name(), var.index(), {}};
  for (const char* column : kNameColumns) {
    if (!var.has(column)) continue;
    table.symbols = var.strings(column);
    break;
  }
  for (const char* column : kIdColumns)
    if (var.has(column) && is_text(var, column)) table.id_columns.emplace_back(column, var.strings(column));
  return table;
}

GeneIds choose_gene_ids(const GeneTable& var, const GeneRules& rules) {
  GeneIds out;
  const std::string& table = var.where;
  const std::vector<std::string>& index = var.index;
  std::vector<std::string> chosen = index, tried;
  out.source = "index";
  double share = share_of_ensembl(chosen);
  tried.push_back(fmt::format("index {}", percent(share)));
  for (const auto& [column, ids] : var.id_columns) {
    if (share >= kEnoughIds) break;
    chosen = ids;
    share = share_of_ensembl(chosen);
    out.source = column;
    tried.push_back(fmt::format("{} {}", column, percent(share)));
  }
  if (share >= kEnoughIds) {
    for (const std::string& id : chosen) out.ids.push_back(without_version(id));
    replace_ids(rules, out);
    if (!out.cross_species) refuse_other_species(out.ids, table, out);
    out.names = out.source == "index" ? var.symbols : index;
    out.notes.push_back(fmt::format("gene ids: {} {} ({} Ensembl ids)", var.name, out.source, percent(share)));
  } else if (rules.names == GeneNames::accept && !rules.known.empty()) {
    out.source = "index (gene names)";
    look_up_names(var.symbols.empty() || var.name != "features" ? index : var.symbols, rules, out);
  } else {
    throw DataError(
        fmt::format("{}: no column of Ensembl gene ids (share of Ensembl ids: {}; first entries: {}); {}", table, fmt::join(tried, ", "),
                    fmt::join(index.begin(), index.begin() + static_cast<std::ptrdiff_t>(std::min<size_t>(index.size(), 3)), ", "),
                    "if the index holds gene symbols, --gene-names looks them up"));
  }
  if (out.names.empty()) out.names.assign(out.ids.size(), "");
  return out;
}

Coverage coverage(std::span<const std::string> ids, std::span<const std::string> names, std::span<const double> totals,
                  std::span<const std::string> vocabulary) {
  const std::unordered_set<std::string_view> known(vocabulary.begin(), vocabulary.end());
  std::unordered_set<std::string_view> present;
  Coverage out;
  out.columns = ids.size();
  out.vocabulary = known.size();
  double all = 0, of_known = 0;
  std::vector<std::pair<double, size_t>> unknown;
  for (size_t i = 0; i < ids.size(); ++i) {
    all += totals[i];
    if (known.count(ids[i]) == 0) {
      unknown.emplace_back(-totals[i], i);
      continue;
    }
    ++out.matched;
    of_known += totals[i];
    present.insert(ids[i]);
  }
  const auto share = [](double part, double whole) { return whole > 0 ? part / whole : 0.0; };
  out.present = present.size();
  out.id_match = share(static_cast<double>(out.matched), static_cast<double>(out.columns));
  out.counts_known = share(of_known, all);
  out.breadth = share(static_cast<double>(out.present), static_cast<double>(out.vocabulary));
  std::sort(unknown.begin(), unknown.end());
  for (size_t k = 0; k < std::min(unknown.size(), kListed) && unknown[k].first < 0; ++k) {
    const size_t i = unknown[k].second;
    const bool named = i < names.size() && !names[i].empty() && names[i] != ids[i];
    out.missing.emplace_back(named ? fmt::format("{} ({})", names[i], ids[i]) : ids[i], -unknown[k].first / all);
  }
  out.lines = {fmt::format("id match: {} ({} of {} columns are in the vocabulary)", percent(out.id_match), out.matched, out.columns),
               fmt::format("counts known: {} of all counts lie in vocabulary genes", percent(out.counts_known)),
               fmt::format("breadth: {} ({} of {} vocabulary genes are in the file)", percent(out.breadth), out.present, out.vocabulary)};
  std::vector<std::string> missing;
  for (const auto& [gene, part] : out.missing) missing.push_back(fmt::format("{} {}", gene, percent(part)));
  const std::string listed = missing.empty() ? "" : fmt::format("; largest missing genes: {}", fmt::join(missing, ", "));
  const bool few_counts = out.counts_known < kCountsRefused, few_genes = out.breadth < kBreadthRefused;
  if (out.counts_known < kCountsWarned)
    out.warnings.push_back(fmt::format("only {} of the counts lie in genes the vocabulary knows{}", percent(out.counts_known), listed));
  if (out.breadth < kBreadthWarned)
    out.warnings.push_back(
        fmt::format("gene subset or panel: {} of the vocabulary's genes are in the file; ranks are not comparable", percent(out.breadth)));
  if (few_counts || few_genes)
    out.refusal = fmt::format("{}{}; --allow-low-coverage goes on all the same",
                              few_counts ? fmt::format("only {} of the counts lie in genes the vocabulary knows (wanted ≥ {})",
                                                       percent(out.counts_known), percent(kCountsRefused))
                                         : fmt::format("only {} of the vocabulary's genes are in the file (wanted ≥ {})",
                                                       percent(out.breadth), percent(kBreadthRefused)),
                              few_counts ? listed : "");
  return out;
}

void require(const Coverage& figures, LowCoverage low, std::string_view file) {
  if (figures.refusal && low == LowCoverage::refuse) throw DataError(fmt::format("{}: {}", file, *figures.refusal));
}

}  // namespace lc
