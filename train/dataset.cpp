#include "train/dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "engine/chance.h"
#include "engine/errors.h"

namespace lc {

static const char* const kCellType = "cell_type";
static constexpr std::uint64_t kMostMapped = std::uint64_t{256} << 20;  // 13 million cells

Dataset::Dataset(const std::vector<std::filesystem::path>& corpora) {
  if (corpora.empty()) throw UsageError("data.corpus: wanted at least one corpus.h5, got none");
  std::uint64_t mapped = 0;
  for (const auto& path : corpus_files(corpora)) {
    corpora_.push_back(Corpus::open(path, corpora_.empty() ? nullptr : corpora_.front().shared_vocabulary()));
    join(corpora_.back());
    mapped += corpora_.back().bytes_mapped();
  }
  for (Corpus& corpus : corpora_) {
    if (mapped > kMostMapped) corpus.look_up_by_copies();
  }
}

void Dataset::join(const Corpus& c) {
  const std::string path = c.path().string();
  if (&c.vocabulary() != &vocabulary() && c.vocabulary().hash() != vocabulary().hash()) {
    throw DataError(fmt::format("{}: its gene vocabulary differs from that of {}; tokenize both with the same genes.tsv", path,
                                corpora_.front().path().string()));
  }
  first_cell_.push_back(first_cell_.back() + static_cast<std::int64_t>(c.cells()));
  auto& groups_here = group_of_label_.emplace_back();
  for (const LabelTexts& label : c.texts().labels) {
    const auto [at, fresh] = group_number_.emplace(label.label, static_cast<std::int32_t>(groups_.size()));
    groups_here.push_back(at->second);
    if (!fresh) {
      const auto& known = texts_of_group_[at->second];
      const bool equal =
          known.size() == label.texts.size() && std::equal(known.begin(), known.end(), label.texts.begin(),
                                                           [&](std::int32_t t, const std::string& text) { return texts_[t] == text; });
      if (!equal)
        throw DataError(
            fmt::format("{}: the texts of label '{}' differ from those in an earlier corpus; tokenize all of them with the same texts",
                        path, label.label));
      continue;
    }
    groups_.push_back(label.label);
    learn(label, c.texts());
    auto& list = texts_of_group_.emplace_back();
    for (const std::string& text : label.texts) {
      const auto [t, unseen] = text_number_.emplace(text, static_cast<std::int32_t>(texts_.size()));
      if (!unseen)
        throw DataError(
            fmt::format("{}: label '{}' has a text that another label of an earlier corpus has; equal texts must have equal labels", path,
                        label.label));
      texts_.push_back(text);
      group_of_text_.push_back(static_cast<std::int32_t>(groups_.size()) - 1);
      list.push_back(t->second);
    }
  }
  for (const TypeAncestor& pair : c.ancestors()) ancestors_.insert({pair.type, pair.ancestor});
}

void Dataset::learn(const LabelTexts& label, const Texts& texts) {
  GroupFacts& facts = facts_.emplace_back();
  facts.type = cell_ontology_number(label.ontology_id);
  knows_types_ = knows_types_ || facts.type >= 0;
  for (std::size_t i = 0; i < label.parts.size(); ++i) facts.fields.push_back({texts.fields.at(i), label.parts[i], {}});
}

bool Dataset::related(std::int32_t group, std::int32_t other) const {
  const GroupFacts &a = facts_.at(static_cast<std::size_t>(group)), &b = facts_.at(static_cast<std::size_t>(other));
  if (a.type < 0 || b.type < 0) return false;
  if (a.type != b.type && !ancestors_.contains({a.type, b.type}) && !ancestors_.contains({b.type, a.type})) return false;
  return std::ranges::all_of(a.fields, [&](const Field& mine) {
    if (mine.name == kCellType || mine.part.empty()) return true;
    const auto theirs = std::ranges::find(b.fields, mine.name, &Field::name);
    return theirs == b.fields.end() || theirs->part.empty() || theirs->part == mine.part;
  });
}

std::pair<const Corpus*, std::uint64_t> Dataset::at(std::int64_t cell) const {
  const auto next = std::upper_bound(first_cell_.begin(), first_cell_.end(), cell);
  const auto which = static_cast<std::size_t>(next - first_cell_.begin()) - 1;
  return {&corpora_[which], static_cast<std::uint64_t>(cell - first_cell_[which])};
}

std::int64_t Dataset::length(std::int64_t cell, int max_tokens) const {
  const auto [corpus, i] = at(cell);
  return std::min<std::int64_t>(max_tokens, corpus->length(i) + 1);
}

Sequences Dataset::sequences(std::span<const std::int64_t> cells, int max_tokens, Pass pass) const {
  Sequences s;
  std::size_t tokens = 0;
  for (const std::int64_t cell : cells) {
    const std::int64_t own = std::clamp<std::int64_t>(length(cell, max_tokens), 1, max_tokens);
    tokens += static_cast<std::size_t>(own);
    s.packing.lengths.push_back(static_cast<std::int32_t>(own));
    s.packing.keys.push_back(sequence_key(pass, static_cast<std::uint64_t>(cell)));
  }
  s.ids.reserve(tokens);
  for (std::size_t i = 0; i < cells.size(); ++i) {
    const auto [corpus, number] = at(cells[i]);
    const std::size_t first = s.ids.size();
    s.ids.resize(first + static_cast<std::size_t>(s.packing.lengths[i]));
    s.ids[first] = vocabulary().cls();
    corpus->copy_tokens(number, std::span(s.ids).subspan(first + 1));
  }
  return s;
}

std::vector<std::int32_t> Dataset::sequence(std::int64_t cell, int max_tokens) const {
  return sequences(std::span(&cell, 1), max_tokens, Pass::view_a).ids;
}

void Dataset::read_soon(std::span<const std::int64_t> cells) const {
  for (const std::int64_t cell : cells) {
    const auto [corpus, i] = at(cell);
    corpus->read_soon(i);
  }
}

std::int32_t Dataset::group(std::int64_t cell) const {
  const auto [corpus, i] = at(cell);
  const std::int32_t own = corpus->group_id(i);
  return own < 0 ? -1 : group_of_label_[static_cast<std::size_t>(corpus - corpora_.data())][own];
}

std::int32_t Dataset::type(std::int64_t cell) const {
  const std::int32_t g = group(cell);
  return g < 0 ? -1 : facts_[static_cast<std::size_t>(g)].type >= 0 ? facts_[static_cast<std::size_t>(g)].type : -2 - g;
}

TextChoice Dataset::text(std::int64_t cell, PhiloxKey chance, double field_dropout) const {
  const std::int32_t g = group(cell);
  if (g < 0) return {};
  constexpr std::uint32_t kTextSite = 0x7ffffffeu;
  const auto& list = texts_of_group_[g];
  const Philox r = draw(chance, static_cast<std::uint64_t>(cell), kTextSite);
  return {list[static_cast<std::size_t>((static_cast<std::uint64_t>(r.word[0]) * list.size()) >> 32)],
          draw_dropped(facts_[static_cast<std::size_t>(g)], cell, chance, field_dropout)};
}

// Bits of the fields that are left out; never all there are.
std::uint32_t Dataset::draw_dropped(const GroupFacts& facts, std::int64_t cell, PhiloxKey chance, double rate) const {
  if (rate <= 0) return 0;
  constexpr std::uint32_t kFieldSite = 0x7ffffffdu;
  const auto limit = static_cast<std::uint64_t>(rate * 4294967296.0);
  std::uint32_t dropped = 0;
  bool some_left = false;
  for (std::size_t i = 0; i < facts.fields.size() && i < 32; ++i) {
    if (facts.fields[i].part.empty()) continue;  // nothing to leave out: such choices stay equal
    const Philox r = draw(chance, static_cast<std::uint64_t>(cell), static_cast<std::uint64_t>(i) << 32 | kFieldSite);
    const bool drop = facts.fields[i].name != kCellType && r.word[0] < limit;
    dropped |= drop ? 1u << i : 0u;
    some_left = some_left || !drop;
  }
  return some_left ? dropped : 0;
}

// A word never reaches over the end of a part, so the pieces of a text are those of its parts, end to end.
std::vector<std::int32_t> Dataset::text_tokens(const TextChoice& choice) const {
  const auto& whole = text_tokens_.at(static_cast<std::size_t>(choice.text));
  if (choice.dropped == 0) return whole;
  std::vector<std::int32_t> tokens = {whole.front()};
  const GroupFacts& facts = facts_[static_cast<std::size_t>(group_of_text_[static_cast<std::size_t>(choice.text)])];
  for (std::size_t i = 0; i < facts.fields.size(); ++i) {
    if (i >= 32 || !(choice.dropped >> i & 1u)) tokens.insert(tokens.end(), facts.fields[i].tokens.begin(), facts.fields[i].tokens.end());
  }
  tokens.resize(std::min(tokens.size(), static_cast<std::size_t>(max_text_tokens_) - 1));
  tokens.push_back(whole.back());
  return tokens;
}

void Dataset::for_column(const std::string& key, const std::function<void(std::int64_t, const std::string&)>& f) const {
  std::int64_t cell = 0;
  for (const Corpus& c : corpora_) {
    if (!c.has_column(key))
      throw DataError(fmt::format("{}: no obs/{}; tokenize with this column, or choose another", c.path().string(), key));
    c.for_column(key, [&](std::uint64_t, std::span<const std::string> entries) {
      for (const std::string& entry : entries) f(cell++, entry);
    });
  }
}

std::vector<std::string> Dataset::tokenize_texts(const WordPiece& word_piece, int max_tokens) {
  text_tokens_.clear();
  max_text_tokens_ = std::max(max_tokens, 2);
  for (GroupFacts& facts : facts_) {
    for (Field& field : facts.fields) {
      const std::vector<std::int32_t> ids = word_piece.encode(field.part, std::numeric_limits<std::int32_t>::max()).ids;
      field.tokens.assign(ids.begin() + 1, ids.end() - 1);
    }
  }
  std::vector<char> cut;
  for (const std::string& text : texts_) {
    EncodedText encoded = word_piece.encode(text, max_tokens);
    cut.push_back(encoded.pieces > max_tokens);
    text_tokens_.push_back(std::move(encoded.ids));
  }
  std::vector<std::string> groups;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    if (std::any_of(texts_of_group_[g].begin(), texts_of_group_[g].end(), [&](std::int32_t t) { return cut[static_cast<std::size_t>(t)]; }))
      groups.push_back(groups_[g]);
  }
  return groups;
}

}  // namespace lc
