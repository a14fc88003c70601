// What the reader of files can be asked, and the frame of a message: a length of 8 bytes, then a Wire. A question is Verb, number of the
// object, arguments; an answer is an exit code, then the result (0) or the error's line.
#pragma once
#include <cstdint>

namespace lc::h5 {

enum class Verb : std::uint8_t {
  open,
  close,
  forget,
  has,
  is_group,
  at,
  children,
  group,
  remove,
  copy_from,
  has_attribute,
  attributes,
  text,
  text_or,
  texts,
  integer,
  integers,
  referenced,
  set_text,
  set_integer,
  set_double,
  set_bool,
  set_texts,
  set_integers,
  set_reference,
  copy_attributes,
  facts,
  item_bytes,
  is_null,
  contiguous_offset,
  pieces,
  read,
  read_strings,
  allocate,
  allocate_like,
  allocate_strings,
  write_strings,
  write_string,
  write,
  append,
  append_strings,
  copy_rows,
};

constexpr int kSocket = 3, kShared = 4;                              // descriptors of the reader
constexpr std::uint64_t kLargestMessage = std::uint64_t{320} << 20;  // bytes
constexpr int kNoMemory = 5;                                         // its exit code where that is wanting outside of an answer
constexpr const char* kReaderName = "langcell-reader";               // its argv[0]

}  // namespace lc::h5
