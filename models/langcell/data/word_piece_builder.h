// A WordPiece vocabulary from texts, for models trained from nothing.
#pragma once
#include <cstdint>
#include <span>
#include <string>

#include "models/langcell/data/word_piece.h"

namespace lc {

// In this order: the special tokens; every ASCII letter, digit and punctuation mark as piece and as ## piece; other characters of the
// texts; whole words by frequency; then pieces by merging the most frequent neighbours (Sennrich et al. 2016) while a pair occurs twice.
// Ties go to the smaller string, so equal texts give equal vocabularies. DataError when `limit` has no room for the letters.
WordPiece build_word_piece(std::span<const std::string> texts, std::int32_t limit = 8192);

}  // namespace lc
