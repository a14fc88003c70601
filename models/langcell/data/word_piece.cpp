// Follows transformers 4.39.1, tokenization_bert.py: BasicTokenizer, then WordpieceTokenizer.
#include "models/langcell/data/word_piece.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>

#include "engine/atomic_file.h"
#include "engine/errors.h"

namespace lc {

namespace {

using Character = utf8proc_int32_t;

// Calls f with each code point; a broken byte is U+FFFD, which cleaning drops.
template <class F>
void for_each_character(std::string_view text, F&& f) {
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  for (size_t i = 0; i < text.size();) {
    Character c = -1;
    const utf8proc_ssize_t length = utf8proc_iterate(bytes + i, static_cast<utf8proc_ssize_t>(text.size() - i), &c);
    i += length > 0 ? static_cast<size_t>(length) : 1;
    f(length > 0 ? c : Character{0xFFFD});
  }
}

void append(std::string& out, Character c) {
  utf8proc_uint8_t bytes[4];
  out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(utf8proc_encode_char(c, bytes)));
}

bool is_control(Character c) {
  switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
      return c != '\t' && c != '\n' && c != '\r';
    default:
      return false;
  }
}

bool is_space(Character c) {  // what Python's str.split() cuts at, once control characters are gone
  if (c == '\t' || c == '\n' || c == '\r') return true;
  const utf8proc_category_t category = utf8proc_category(c);
  return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL || category == UTF8PROC_CATEGORY_ZP;
}

bool is_cjk(Character c) {
  constexpr Character ranges[][2] = {{0x4E00, 0x9FFF},   {0x3400, 0x4DBF},   {0x20000, 0x2A6DF}, {0x2A700, 0x2B73F},
                                     {0x2B740, 0x2B81F}, {0x2B820, 0x2CEAF}, {0xF900, 0xFAFF},   {0x2F800, 0x2FA1F}};
  return std::any_of(std::begin(ranges), std::end(ranges), [c](const Character(&range)[2]) { return c >= range[0] && c <= range[1]; });
}

bool is_punctuation(Character c) {
  if (c < 128) return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) || (c >= 123 && c <= 126);
  switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
      return true;
    default:
      return false;
  }
}

// Lower case, then canonical decomposition without marks (category Mn).
void append_stripped(std::string& out, Character c) {
  Character decomposed[32];
  int boundary = 0;
  const utf8proc_ssize_t count = utf8proc_decompose_char(utf8proc_tolower(c), decomposed, 32, UTF8PROC_DECOMPOSE, &boundary);
  for (utf8proc_ssize_t i = 0; i < std::min<utf8proc_ssize_t>(count, 32); ++i)
    if (utf8proc_category(decomposed[i]) != UTF8PROC_CATEGORY_MN) append(out, decomposed[i]);
}

}  // namespace

std::vector<std::string> basic_words(std::string_view text) {
  std::vector<std::string> words;
  std::string word, stripped;
  const auto finish = [&] {
    if (!word.empty()) words.push_back(std::move(word));
    word.clear();
  };
  for_each_character(text, [&](Character c) {
    if (c == 0 || c == 0xFFFD || is_control(c)) return;
    if (is_space(c)) return finish();
    const bool alone = is_cjk(c);
    if (alone) finish();
    stripped.clear();
    append_stripped(stripped, c);
    for_each_character(stripped, [&](Character d) {
      if (!is_punctuation(d)) return append(word, d);
      finish();
      append(word, d);
      finish();
    });
    if (alone) finish();
  });
  finish();
  return words;
}

WordPiece::WordPiece(std::vector<std::string> pieces, std::string_view where) : pieces_(std::move(pieces)) {
  for (size_t i = 0; i < pieces_.size(); ++i)
    id_of_[pieces_[i]] = static_cast<std::int32_t>(i);  // a repeated piece: the last counts, as upstream
  for (size_t i = 0; i < specials.size(); ++i) {
    special_[i] = id_of(specials[i]);
    if (special_[i] < 0)
      throw ModelError(fmt::format("{}: a vocabulary of {} pieces without {}; give a whole BERT vocabulary, one piece a line", where,
                                   pieces_.size(), specials[i]));
  }
}

WordPiece WordPiece::read(const std::filesystem::path& path) {
  if (!std::filesystem::is_regular_file(path))
    throw ModelError(fmt::format("{}: no such file; the text vocabulary is missing", path.string()));
  const std::string text = read_file(path);
  std::vector<std::string> pieces;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    pieces.emplace_back(text, begin, end - begin);
    if (pieces.back().ends_with('\r')) pieces.back().pop_back();
    begin = end + 1;
  }
  return WordPiece(std::move(pieces), path.string());
}

std::string WordPiece::text() const {
  std::string out;
  for (const std::string& piece : pieces_) out += piece + '\n';
  return out;
}

void WordPiece::write(const std::filesystem::path& path) const { write_file(path, text()); }

std::int32_t WordPiece::id_of(std::string_view piece) const {
  const auto found = id_of_.find(piece);
  return found == id_of_.end() ? -1 : found->second;
}

void WordPiece::require_fits(std::int64_t table_rows, std::string_view where) const {
  constexpr std::int64_t added = 2, granule = 64;  // BLIP's [DEC] and [ENC]; a table padded for the sake of speed
  const std::int64_t spare = table_rows - size();
  if (spare == 0 || spare == added || (spare > 0 && spare < granule && table_rows % granule == 0)) return;
  throw ModelError(fmt::format("{}: {} pieces for an embedding table of {} rows; the vocabulary is of another model or cut off", where,
                               size(), table_rows));
}

EncodedText WordPiece::encode(std::string_view text, std::int64_t max_tokens) const {
  EncodedText out;
  out.ids.push_back(special_[2]);
  while (!text.empty()) {
    size_t at = text.size(), which = specials.size();
    for (size_t i = 0; i < specials.size(); ++i) {
      const size_t found = text.substr(0, at).find(specials[i]);
      if (found != std::string_view::npos) at = found, which = i;
    }
    add_words(text.substr(0, at), out);
    if (which < specials.size()) out.ids.push_back(special_[which]);
    text.remove_prefix(which < specials.size() ? at + specials[which].size() : text.size());
  }
  out.pieces = static_cast<std::int64_t>(out.ids.size()) + 1;
  out.ids.resize(std::min(out.ids.size(), static_cast<size_t>(std::max<std::int64_t>(max_tokens, 2)) - 1));
  out.ids.push_back(special_[3]);
  return out;
}

void WordPiece::add_words(std::string_view text, EncodedText& out) const {
  for (const std::string& word : basic_words(text)) add_pieces(word, out);
}

// Greedy: from each position the longest piece there is; a word that cannot be covered is one [UNK].
void WordPiece::add_pieces(std::string_view word, EncodedText& out) const {
  std::vector<size_t> ends;  // of each character, in bytes
  for (size_t i = 1; i <= word.size(); ++i)
    if (i == word.size() || (static_cast<unsigned char>(word[i]) & 0xC0) != 0x80) ends.push_back(i);
  const size_t before = out.ids.size();
  bool covered = ends.size() <= max_word_characters;
  std::string candidate;
  for (size_t begin = 0, first = 0; covered && begin < word.size();) {
    std::int32_t id = -1;
    size_t last = ends.size();
    for (; last > first && id < 0; --last) {
      candidate.assign(begin == 0 ? "" : "##").append(word, begin, ends[last - 1] - begin);
      id = id_of(candidate);
    }
    covered = id >= 0;
    if (!covered) break;
    out.ids.push_back(id);
    begin = ends[last];
    first = last + 1;
  }
  if (covered) return;
  out.ids.resize(before);
  out.ids.push_back(special_[1]);
  ++out.unknown;
}

std::string unknown_warning(const WordPiece& word_piece, std::span<const std::string> texts) {
  constexpr double limit = 0.3;
  size_t affected = 0;
  std::string first;
  for (const std::string& text : texts) {
    const EncodedText encoded = word_piece.encode(text, 2);
    const std::int64_t pieces = encoded.pieces - 2;
    if (pieces == 0 || static_cast<double>(encoded.unknown) <= limit * static_cast<double>(pieces)) continue;
    if (affected++ == 0) first = fmt::format("{} of {} pieces in \"{:.60}\"", encoded.unknown, pieces, text);
  }
  if (affected == 0) return {};
  return fmt::format("{} of {} texts are more than 30 % [UNK] in this text vocabulary (first: {}); the model cannot read what it never saw",
                     affected, texts.size(), first);
}

}  // namespace lc
