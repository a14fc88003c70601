// A pickle machine that executes nothing: it builds plain values and, for the few globals its caller names, records of what was called.
// Opcodes and their meaning: CPython's pickletools. Whatever it does not know is refused by name.
#pragma once
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lc {

class Pickle {
 public:
  enum class Kind : std::uint8_t { none, boolean, integer, real, text, bytes, tuple, list, dictionary, global, call, persistent };
  struct Value {
    Kind kind = Kind::none;
    std::int64_t integer = 0;  // boolean and integer
    double real = 0;
    std::string text;  // text, bytes; a global's "module name"
    std::vector<const Value*>
        items;  // tuple, list; dictionary: key, value, key, value …; call: its global, then the arguments; persistent: the id
    const Value* state = nullptr;  // what BUILD gave a call

    bool is(Kind wanted) const { return kind == wanted; }
    bool calls(std::string_view global) const { return kind == Kind::call && items[0]->text == global; }
  };

  // ModelError naming `where`, the opcode and its place for anything but the protocol's plain values and these globals ("module name").
  Pickle(std::string_view bytes, std::span<const std::string_view> globals, std::string where);

  const Value& top() const { return *top_; }
  static const char* name_of(Kind kind);

 private:
  friend class PickleMachine;
  std::deque<Value> values_;  // owned flat: no depth of nesting can exhaust the stack, no cycle can leak
  const Value* top_ = nullptr;
};

}  // namespace lc
