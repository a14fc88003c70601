// Words are counted once; merges walk the distinct words, which are few where texts are cell-type descriptions.
#include "models/langcell/data/word_piece_builder.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "engine/errors.h"

namespace lc {

namespace {

using Counts = std::map<std::string, std::int64_t>;
using Pair = std::pair<std::string, std::string>;

struct Word {
  std::vector<std::string> pieces;
  std::int64_t count = 0;
};

std::vector<std::string> characters_of(const std::string& word) {
  std::vector<std::string> characters;
  for (const char byte : word) {
    if ((static_cast<unsigned char>(byte) & 0xC0) != 0x80 || characters.empty()) characters.emplace_back();
    characters.back() += byte;
  }
  return characters;
}

std::vector<std::string> by_frequency(const Counts& counts) {
  std::vector<std::pair<std::string, std::int64_t>> sorted(counts.begin(), counts.end());
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  std::vector<std::string> keys;
  for (auto& entry : sorted) keys.push_back(std::move(entry.first));
  return keys;
}

class Builder {
 public:
  explicit Builder(size_t limit) : limit_(limit) {}
  bool full() const { return pieces_.size() >= limit_; }
  void add(const std::string& piece) {
    if (!full() && known_.insert(piece).second) pieces_.push_back(piece);
  }
  std::vector<std::string> take() { return std::move(pieces_); }

 private:
  size_t limit_;
  std::vector<std::string> pieces_;
  std::set<std::string> known_;
};

std::string joined(const Pair& pair) { return pair.first + pair.second.substr(2); }

void merge(Word& word, const Pair& pair) {
  std::vector<std::string> merged;
  for (size_t i = 0; i < word.pieces.size(); ++i) {
    const bool here = i + 1 < word.pieces.size() && word.pieces[i] == pair.first && word.pieces[i + 1] == pair.second;
    merged.push_back(here ? joined(pair) : word.pieces[i]);
    i += here;
  }
  word.pieces = std::move(merged);
}

// Counts of neighbours are kept up to date: only words that hold the merged pair are looked at again.
void add_merges(std::vector<Word> words, Builder& builder) {
  std::map<Pair, std::int64_t> counts;
  std::map<Pair, std::set<size_t>> holders;
  std::set<std::pair<std::int64_t, Pair>> queue;  // (−count, pair): the first is the most frequent, ties to the smaller
  const auto account = [&](size_t which, std::int64_t sign) {
    const Word& word = words[which];
    for (size_t i = 0; i + 1 < word.pieces.size(); ++i) {
      const Pair pair{word.pieces[i], word.pieces[i + 1]};
      std::int64_t& count = counts[pair];
      queue.erase({-count, pair});
      count += sign * word.count;
      if (count > 0) queue.insert({-count, pair});
      if (sign > 0) holders[pair].insert(which);
    }
  };
  for (size_t i = 0; i < words.size(); ++i) account(i, +1);
  while (!builder.full() && !queue.empty() && queue.begin()->first <= -2) {
    const Pair pair = queue.begin()->second;
    builder.add(joined(pair));
    const std::set<size_t> affected = std::move(holders[pair]);
    holders.erase(pair);
    for (const size_t i : affected) {
      account(i, -1);
      merge(words[i], pair);
      account(i, +1);
    }
  }
}

}  // namespace

WordPiece build_word_piece(std::span<const std::string> texts, std::int32_t limit) {
  constexpr std::string_view ascii = "abcdefghijklmnopqrstuvwxyz0123456789!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
  const size_t smallest = WordPiece::specials.size() + 2 * ascii.size();
  if (limit < static_cast<std::int64_t>(smallest))
    throw DataError(
        fmt::format("text vocabulary: a limit of {} pieces has no room for the {} of letters, digits and punctuation", limit, smallest));

  Counts words, others;
  for (const std::string& text : texts)
    for (std::string& word : basic_words(text)) {
      if (characters_of(word).size() <= WordPiece::max_word_characters) ++words[std::move(word)];
    }
  Builder builder(static_cast<size_t>(limit));
  for (const std::string_view special : WordPiece::specials) builder.add(std::string(special));
  for (const char c : ascii) builder.add(std::string(1, c));
  for (const char c : ascii) builder.add(std::string("##") + c);
  std::vector<Word> split;
  for (const auto& [word, count] : words) {
    split.push_back({characters_of(word), count});
    for (const std::string& character : split.back().pieces) others[character] += count;
    for (size_t i = 1; i < split.back().pieces.size(); ++i) split.back().pieces[i].insert(0, "##");
  }
  for (const std::string& character : by_frequency(others)) {
    builder.add(character);
    builder.add("##" + character);
  }
  for (const std::string& word : by_frequency(words)) builder.add(word);
  add_merges(std::move(split), builder);
  return WordPiece(builder.take(), "text vocabulary");
}

}  // namespace lc
