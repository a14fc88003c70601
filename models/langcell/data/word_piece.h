// BERT's uncased WordPiece (Devlin et al. 2019): equal, id by id, to transformers' slow BertTokenizer, which the published code uses.
// The slow one drops every character of category C*, and lower-cases character by character (a final capital sigma becomes σ).
#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace lc {

// Text without special tokens to words: cleaned, CJK characters apart, lower case, accents stripped, punctuation marks apart.
std::vector<std::string> basic_words(std::string_view text);

struct EncodedText {
  std::vector<std::int32_t> ids;  // [CLS] … [SEP]
  std::int64_t pieces = 0;        // before the cut, with [CLS] and [SEP]
  std::int64_t unknown = 0;       // [UNK] among them
};

class WordPiece {
 public:
  static constexpr size_t max_word_characters = 100;  // longer words are [UNK]
  static constexpr std::array<std::string_view, 5> specials = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};

  WordPiece() = default;
  explicit WordPiece(std::vector<std::string> pieces, std::string_view where = "vocabulary");  // ModelError when a special token is missing
  static WordPiece read(const std::filesystem::path& vocab_txt);  // one piece a line; ModelError when missing or without special tokens
  void write(const std::filesystem::path& vocab_txt) const;       // atomically
  std::string text() const;                                       // the content of vocab.txt

  EncodedText encode(std::string_view text, std::int64_t max_tokens) const;  // special tokens in the text count as such
  std::int32_t size() const { return static_cast<std::int32_t>(pieces_.size()); }
  std::int32_t pad() const { return special_[0]; }
  std::int32_t unknown() const { return special_[1]; }
  std::int32_t id_of(std::string_view piece) const;  // -1: no such piece
  const std::string& piece(std::int32_t id) const { return pieces_.at(static_cast<size_t>(id)); }

  // A model's embedding table may have a few rows more (added tokens, padding), never fewer. ModelError otherwise.
  void require_fits(std::int64_t table_rows, std::string_view where) const;

 private:
  void add_words(std::string_view text, EncodedText& out) const;
  void add_pieces(std::string_view word, EncodedText& out) const;

  struct TextHash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  std::vector<std::string> pieces_;
  std::unordered_map<std::string, std::int32_t, TextHash, std::equal_to<>> id_of_;
  std::array<std::int32_t, 5> special_{};
};

// A warning when more than 30 % of a text's pieces are [UNK]; empty otherwise.
std::string unknown_warning(const WordPiece& word_piece, std::span<const std::string> texts);

}  // namespace lc
