#include "models/langcell/pretrained/pickle.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "engine/errors.h"

namespace lc {

class PickleMachine {
 public:
  using Value = Pickle::Value;
  using Kind = Pickle::Kind;

  PickleMachine(std::string_view bytes, std::span<const std::string_view> globals, const std::string& where, std::deque<Value>& values)
      : bytes_(bytes), globals_(globals), where_(where), values_(values) {}

  const Value* run() {
    for (;;) {
      opcode_at_ = at_;
      const auto code = number<std::uint8_t>();
      if (code == '.') break;
      step(code);
    }
    if (stack_.size() != 1 || !marks_.empty()) refuse("ends with other than one value");
    return stack_.back();
  }

 private:
  static constexpr size_t kMostValues = 2'000'000;  // a hundred times what a large state dict has

  [[noreturn]] void refuse(std::string_view what) const {
    throw ModelError(
        fmt::format("{}: byte {} of the pickle {}; only plain tensors and dictionaries are read, nothing is executed: save it again as "
                    "safetensors or with torch.save(state_dict)",
                    where_, opcode_at_, what));
  }
  std::string_view take(std::uint64_t count) {
    if (count > bytes_.size() - at_) refuse("is cut off");
    const std::string_view piece = bytes_.substr(at_, static_cast<size_t>(count));
    at_ += static_cast<size_t>(count);
    return piece;
  }
  template <class T>
  T number() {
    T value{};
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }
  std::string_view line() {
    const size_t end = bytes_.find('\n', at_);
    if (end == std::string_view::npos) refuse("is cut off");
    const std::string_view text = take(end - at_);
    take(1);
    return text;
  }
  Value& push(Kind kind) {
    if (values_.size() >= kMostValues) refuse(fmt::format("makes more than {} values", kMostValues));
    stack_.push_back(&values_.emplace_back());
    values_.back().kind = kind;
    return values_.back();
  }
  void push_text(Kind kind, std::uint64_t count) { push(kind).text = take(count); }
  void push_integer(std::int64_t value, Kind kind = Kind::integer) { push(kind).integer = value; }
  Value* pop() {
    if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) refuse("takes more than there is");
    Value* const value = stack_.back();
    stack_.pop_back();
    return value;
  }
  Value& below() {  // the container that items are put into
    if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) refuse("has nothing to put into");
    return *stack_.back();
  }
  std::vector<const Value*> pop_to_mark() {
    if (marks_.empty()) refuse("has no mark");
    std::vector<const Value*> items(stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back()), stack_.end());
    stack_.resize(marks_.back());
    marks_.pop_back();
    return items;
  }
  void push_tuple(std::vector<const Value*> items) { push(Kind::tuple).items = std::move(items); }
  void push_tuple_of(size_t count) {
    std::vector<const Value*> items(count);
    for (size_t i = count; i-- > 0;) items[i] = pop();
    push_tuple(std::move(items));
  }
  // The memo and BINGET share values; how many references a file may make is bounded as the values are.
  void put_into(Kind kind, const std::vector<const Value*>& items) {
    Value& to = below();
    if (to.kind != kind) refuse(fmt::format("puts items into a {}", Pickle::name_of(to.kind)));
    if (kind == Kind::dictionary && items.size() % 2 != 0) refuse("has a key without a value");
    to.items.insert(to.items.end(), items.begin(), items.end());
  }
  void put_pairs(const std::vector<const Value*>& items) { put_into(Kind::dictionary, items); }
  void remember(std::uint64_t place) {
    if (place > kMostValues) refuse("remembers at an impossible place");
    if (memo_.size() <= place) memo_.resize(static_cast<size_t>(place) + 1);
    memo_[static_cast<size_t>(place)] = &below();
  }
  void recall(std::uint64_t place) {
    if (place >= memo_.size() || !memo_[static_cast<size_t>(place)]) refuse("recalls what was never remembered");
    if (++recalled_ > kMostValues) refuse(fmt::format("recalls more than {} values", kMostValues));
    stack_.push_back(memo_[static_cast<size_t>(place)]);
  }
  void push_global(std::string_view module, std::string_view name) {
    const std::string text = fmt::format("{} {}", module.substr(0, 80), name.substr(0, 80));
    if (std::find(globals_.begin(), globals_.end(), text) == globals_.end()) {
      std::string shown = text;
      std::replace_if(
          shown.begin(), shown.end(), [](char c) { return static_cast<unsigned char>(c) < 32 || c == 127; }, '?');
      std::replace(shown.begin(), shown.end(), ' ', '.');
      refuse(fmt::format("wants {}, which has no place among tensors", shown));
    }
    push(Kind::global).text = text;
  }
  void call() {
    const Value *arguments = pop(), *function = pop();
    if (!function->is(Kind::global) || !arguments->is(Kind::tuple)) refuse("calls what is no function");
    if (function->text == "collections OrderedDict" && arguments->items.empty()) return push(Kind::dictionary), void();
    Value& result = push(Kind::call);
    result.items.push_back(function);
    result.items.insert(result.items.end(), arguments->items.begin(), arguments->items.end());
  }
  void build() {  // attributes of a dictionary (a state dict's _metadata) say nothing about tensors
    const Value* state = pop();
    Value& object = below();
    if (!object.is(Kind::call) && !object.is(Kind::dictionary)) refuse(fmt::format("sets the state of a {}", Pickle::name_of(object.kind)));
    object.state = state;
  }
  void push_long(std::uint64_t count) {
    const std::string_view digits = take(count);
    if (count > 8) refuse("has an integer of more than 64 bits");
    std::uint64_t value = 0;
    for (size_t i = 0; i < digits.size(); ++i) value |= static_cast<std::uint64_t>(static_cast<unsigned char>(digits[i])) << (8 * i);
    if (count > 0 && count < 8 && (digits.back() & 0x80)) value |= ~std::uint64_t{0} << (8 * count);  // two's complement
    push_integer(static_cast<std::int64_t>(value));
  }

  void step(std::uint8_t code);
  bool step_of_numbers(std::uint8_t code);
  bool step_of_containers(std::uint8_t code);

  std::string_view bytes_;
  std::span<const std::string_view> globals_;
  const std::string& where_;
  std::deque<Value>& values_;
  size_t at_ = 0, opcode_at_ = 0, recalled_ = 0, memoized_ = 0;
  std::vector<Value*> stack_, memo_;
  std::vector<size_t> marks_;
};

bool PickleMachine::step_of_numbers(std::uint8_t code) {
  switch (code) {
    case 'N':
      push(Kind::none);
      return true;
    case 0x88:
      push_integer(1, Kind::boolean);
      return true;
    case 0x89:
      push_integer(0, Kind::boolean);
      return true;
    case 'K':
      push_integer(number<std::uint8_t>());
      return true;
    case 'M':
      push_integer(number<std::uint16_t>());
      return true;
    case 'J':
      push_integer(number<std::int32_t>());
      return true;
    case 0x8a:
      push_long(number<std::uint8_t>());
      return true;
    case 'G':
      push(Kind::real).real = std::bit_cast<double>(__builtin_bswap64(number<std::uint64_t>()));
      return true;
    case 'X':
      push_text(Kind::text, number<std::uint32_t>());
      return true;
    case 0x8c:
      push_text(Kind::text, number<std::uint8_t>());
      return true;
    case 0x8d:
      push_text(Kind::text, number<std::uint64_t>());
      return true;
    case 'C':
      push_text(Kind::bytes, number<std::uint8_t>());
      return true;
    case 'B':
      push_text(Kind::bytes, number<std::uint32_t>());
      return true;
    default:
      return false;
  }
}

bool PickleMachine::step_of_containers(std::uint8_t code) {
  switch (code) {
    case '(':
      marks_.push_back(stack_.size());
      return true;
    case ')':
      push_tuple({});
      return true;
    case 't':
      push_tuple(pop_to_mark());
      return true;
    case 0x85:
      push_tuple_of(1);
      return true;
    case 0x86:
      push_tuple_of(2);
      return true;
    case 0x87:
      push_tuple_of(3);
      return true;
    case ']':
      push(Kind::list);
      return true;
    case 'a': {
      const Value* item = pop();
      put_into(Kind::list, {item});
      return true;
    }
    case 'e':
      put_into(Kind::list, pop_to_mark());
      return true;
    case '}':
      push(Kind::dictionary);
      return true;
    case 's': {
      const Value *value = pop(), *key = pop();
      put_pairs({key, value});
      return true;
    }
    case 'u':
      put_pairs(pop_to_mark());
      return true;
    default:
      return false;
  }
}

void PickleMachine::step(std::uint8_t code) {
  if (step_of_numbers(code) || step_of_containers(code)) return;
  switch (code) {
    case 0x80:
      if (const int protocol = number<std::uint8_t>(); protocol < 2 || protocol > 5)
        refuse(fmt::format("is of protocol {}, wanted 2 to 5", protocol));
      return;
    case 0x95:
      number<std::uint64_t>();
      return;  // FRAME: a hint for buffering
    case 'q':
      return remember(number<std::uint8_t>());
    case 'r':
      return remember(number<std::uint32_t>());
    case 0x94:
      return remember(memoized_++);
    case 'h':
      return recall(number<std::uint8_t>());
    case 'j':
      return recall(number<std::uint32_t>());
    case 'c': {
      const std::string_view module = line();
      return push_global(module, line());
    }
    case 0x93: {
      const Value *name = pop(), *module = pop();
      if (!name->is(Kind::text) || !module->is(Kind::text)) refuse("names a global by other than text");
      return push_global(module->text, name->text);
    }
    case 'R':
      return call();
    case 'b':
      return build();
    case 'Q': {
      const Value* id = pop();
      push(Kind::persistent).items = {id};
      return;
    }
    default:
      refuse(fmt::format("is the opcode 0x{:02x}, which no state dict needs", code));
  }
}

Pickle::Pickle(std::string_view bytes, std::span<const std::string_view> globals, std::string where) {
  top_ = PickleMachine(bytes, globals, where, values_).run();
}

const char* Pickle::name_of(Kind kind) {
  constexpr const char* names[] = {"none",  "boolean", "integer",    "float",  "text",   "bytes",
                                   "tuple", "list",    "dictionary", "global", "object", "persistent id"};
  return names[static_cast<int>(kind)];
}

}  // namespace lc
