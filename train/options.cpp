#include "train/options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <limits>
#include <map>
#include <optional>
#include <sstream>
#include <utility>

#include "engine/atomic_file.h"
#include "engine/errors.h"
#include "engine/nearest.h"
#include "models/langcell/config.h"
#include "train/schedule.h"

namespace lc {
namespace {

constexpr double kAny = std::numeric_limits<double>::infinity();

enum class OnResume : std::uint8_t { fixed, free };

struct Range {  // of numbers; `open` ends are not in it
  double low = -kAny, high = kAny;
  enum class Ends : std::uint8_t { closed, open_above, open } ends = Ends::closed;
  bool holds(double x) const {
    if (!(x >= low && x <= high)) return false;
    return !(ends == Ends::open && x == low) && !(ends != Ends::closed && x == high);
  }
  std::string text() const {
    if (high == kAny) return fmt::format("{} {}", ends == Ends::open ? "above" : "at least", low);
    const char* upto = ends == Ends::open ? "and below" : ends == Ends::closed ? "to" : "to below";
    return fmt::format("{} {} {} {}", ends == Ends::open ? "above" : "from", low, upto, high);
  }
};
const Range kFromZero{0, kAny}, kFromOne{1, kAny}, kAboveZero{0, kAny, Range::Ends::open}, kShare{0, 1, Range::Ends::open_above};

template <class E>
struct Name {
  const char* text;
  E value;
};
template <class E>
struct Names;
template <>
struct Names<Decay> {
  static constexpr Name<Decay> all[] = {{"linear", Decay::linear}, {"cosine", Decay::cosine}, {"constant", Decay::constant}};
};
template <>
struct Names<SamePairs> {
  using enum SamePairs;
  static constexpr Name<SamePairs> all[] = {{"positive", positive}, {"merge", merge}, {"ignore", ignore}};
};
template <>
struct Names<RelatedTypes> {
  static constexpr Name<RelatedTypes> all[] = {{"ignore", RelatedTypes::ignore}, {"negative", RelatedTypes::negative}};
};
template <class E>
concept Choice = std::is_enum_v<E>;

// ---- The table of keys. A visitor is called as visit(name, value, rule) with the rule last: a Range, a list of words, or nothing.

using Words = std::vector<std::string>;
struct Key {
  std::string name;
  OnResume resume = OnResume::fixed;
};

template <class Stage, class Visit>
void each_key_of_stage(const std::string& stage, Stage& s, Visit& visit) {
  const auto key = [&](const char* name, OnResume resume = OnResume::fixed) { return Key{stage + "." + name, resume}; };
  visit(key("steps", OnResume::free), s.steps, kFromZero);
  visit(key("epochs", OnResume::free), s.epochs, kFromZero);
  visit(key("lr"), s.lr, kFromZero);
  visit(key("warmup"), s.warmup, kFromZero);
  visit(key("decay"), s.decay);
  visit(key("weight_decay"), s.weight_decay, kFromZero);
  visit(key("clip"), s.clip, kFromZero);
  visit(key("temperature"), s.temperature, kAboveZero);
  visit(key("mask_rate"), s.mask_rate, Range{0, 1, Range::Ends::open});
  visit(key("share_pass"), s.share_pass);
  visit(key("freeze"), s.freeze);
  if (stage == "stage2") visit(key("same_text"), s.same_text), visit(key("related"), s.related);
  visit(key("objectives.mgm"), s.objectives.mgm, kFromZero);
  visit(key("objectives.cell_cell"), s.objectives.cell_cell, kFromZero);
  if (stage == "stage2") {
    visit(key("objectives.cell_text"), s.objectives.cell_text, kFromZero);
    visit(key("objectives.matching"), s.objectives.matching, kFromZero);
  }
}

template <class O, class Visit>
void each_key(O& o, Visit visit) {
  constexpr OnResume free = OnResume::free;
  visit(Key{"model.preset"}, o.model.preset, preset_names());
  visit(Key{"model.init"}, o.model.init);
  visit(Key{"model.cell_model"}, o.model.cell_model);
  visit(Key{"model.text_model"}, o.model.text_model);
  visit(Key{"model.text_vocab"}, o.model.text_vocab);
  visit(Key{"data.corpus"}, o.data.corpus);
  visit(Key{"data.max_cell_tokens"}, o.data.max_cell_tokens, Range{2, 65536});
  visit(Key{"data.max_text_tokens"}, o.data.max_text_tokens, Range{2, 65536});
  visit(Key{"data.holdout"}, o.data.holdout, kShare);
  visit(Key{"data.holdout_by"}, o.data.holdout_by);
  visit(Key{"data.sampling"}, o.data.sampling, Words{"uniform", "sqrt_type"});
  visit(Key{"data.field_dropout"}, o.data.field_dropout, kShare);
  visit(Key{"train.seed"}, o.train.seed, kFromZero);
  visit(Key{"train.device", free}, o.train.device);
  visit(Key{"train.precision"}, o.train.precision, Words{"auto", "fp32", "bf16"});
  visit(Key{"train.threads", free}, o.train.threads, Range{0, 65536});
  visit(Key{"train.batch_size"}, o.train.batch_size, Range{1, 1 << 30});
  visit(Key{"train.accumulate"}, o.train.accumulate, Range{1, 1 << 30});
  visit(Key{"train.recompute"}, o.train.recompute);
  visit(Key{"train.log_every", free}, o.train.log_every, kFromOne);
  visit(Key{"train.tensorboard", free}, o.train.tensorboard);
  each_key_of_stage("stage1", o.stage1, visit);
  each_key_of_stage("stage2", o.stage2, visit);
  visit(Key{"validate.every", free}, o.validate.every, kFromZero);
  visit(Key{"checkpoint.every", free}, o.checkpoint.every, kFromZero);
  visit(Key{"checkpoint.keep", free}, o.checkpoint.keep, kFromOne);
  visit(Key{"ranks.silence_s", free}, o.ranks.silence_s, kFromZero);
  visit(Key{"ranks.timeout_s", free}, o.ranks.timeout_s, kFromZero);
}

// ---- Values from TOML

[[noreturn]] void refuse(const std::string& key, const std::string& wanted, const toml::node& found) {
  std::ostringstream text;
  found.visit([&](const auto& node) { text << node; });
  std::string got = text.str();
  std::replace(got.begin(), got.end(), '\n', ' ');
  throw UsageError(fmt::format("{}: wanted {}, got {}", key, wanted, got));
}

void take(const std::string& key, std::string& value, const toml::node& node) {
  const auto text = node.value_exact<std::string>();
  if (!text) refuse(key, "a text in quotes", node);
  value = *text;
}
void take(const std::string& key, std::string& value, const toml::node& node, const Words& words) {
  take(key, value, node);
  if (std::find(words.begin(), words.end(), value) == words.end()) refuse(key, fmt::format("one of {}", fmt::join(words, ", ")), node);
}
void take(const std::string& key, bool& value, const toml::node& node) {
  const auto flag = node.value_exact<bool>();
  if (!flag) refuse(key, "true or false", node);
  value = *flag;
}
void take(const std::string& key, std::int64_t& value, const toml::node& node, const Range& range) {
  const auto number = node.value_exact<std::int64_t>();
  if (!number || !range.holds(static_cast<double>(*number))) refuse(key, "a whole number " + range.text(), node);
  value = *number;
}
void take(const std::string& key, double& value, const toml::node& node, const Range& range) {
  const auto number = node.is_number() ? node.value<double>() : std::nullopt;
  if (!number || !std::isfinite(*number) || !range.holds(*number)) refuse(key, "a number " + range.text(), node);
  value = *number;
}
void take(const std::string& key, std::vector<std::string>& value, const toml::node& node) {
  if (const auto one = node.value_exact<std::string>()) {  // a list of one, as `--set data.corpus=FILE` gives it
    value = {*one};
    return;
  }
  if (!node.is_array()) refuse(key, "a list of texts", node);
  value.clear();
  for (const toml::node& element : *node.as_array()) {
    const auto text = element.value_exact<std::string>();
    if (!text) refuse(key, "a list of texts", node);
    value.push_back(*text);
  }
}
template <Choice E>
void take(const std::string& key, E& value, const toml::node& node) {
  const auto text = node.value_exact<std::string>();
  Words words;
  for (const Name<E>& name : Names<E>::all) {
    words.push_back(name.text);
    if (text && *text == name.text) {
      value = name.value;
      return;
    }
  }
  refuse(key, fmt::format("one of {}", fmt::join(words, ", ")), node);
}

// ---- Values to TOML

std::string shown(const std::string& text) {
  std::ostringstream out;
  out << toml::value<std::string>(text);
  return out.str();
}
std::string shown(bool flag) { return flag ? "true" : "false"; }
std::string shown(std::int64_t number) { return fmt::format("{}", number); }
std::string shown(double number) {
  const std::string text = fmt::format("{}", number);
  return text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
}
std::string shown(const std::vector<std::string>& texts) {
  std::vector<std::string> each;
  for (const std::string& text : texts) each.push_back(shown(text));
  return fmt::format("[{}]", fmt::join(each, ", "));
}
template <Choice E>
std::string shown(E value) {
  for (const Name<E>& name : Names<E>::all) {
    if (name.value == value) return fmt::format("\"{}\"", name.text);
  }
  return "\"\"";
}

// ---- Names

std::vector<std::string> key_names() {
  std::vector<std::string> names;
  each_key(static_cast<const Options&>(Options()), [&](const Key& key, const auto&, const auto&...) { names.push_back(key.name); });
  return names;
}

std::string nearest(const std::string& key, const std::vector<std::string>& names) {
  // A right name under a wrong section is nearer than any spelling.
  const auto distance = [&](const std::string& name) {
    const std::string tail = key.substr(key.rfind('.') + 1), name_tail = name.substr(name.rfind('.') + 1);
    return std::min(edit_distance(key, name), edit_distance(tail, name_tail) + 1);
  };
  return *std::min_element(names.begin(), names.end(),
                           [&](const std::string& a, const std::string& b) { return distance(a) < distance(b); });
}

// Walks the leaves of what was given: a table whose name is no prefix of a key counts as a leaf.
void refuse_unknown(const toml::table& table, const std::string& prefix, const std::vector<std::string>& names) {
  for (const auto& [name, node] : table) {
    const std::string key = prefix.empty() ? std::string(name.str()) : prefix + "." + std::string(name.str());
    const bool is_section = std::any_of(names.begin(), names.end(), [&](const std::string& known) { return known.starts_with(key + "."); });
    if (is_section && node.is_table()) {
      refuse_unknown(*node.as_table(), key, names);
    } else if (is_section) {
      refuse(key, "a section", node);
    } else if (std::find(names.begin(), names.end(), key) == names.end()) {
      throw UsageError(fmt::format("{}: no such key; did you mean {}?", key, nearest(key, names)));
    }
  }
}

// ---- The parts of parse_options

toml::table parse_toml(const std::string& text, const std::string& where) {
  try {
    return toml::parse(text);
  } catch (const toml::parse_error& error) {
    std::string what(error.description());
    std::replace(what.begin(), what.end(), '\n', ' ');
    throw UsageError(fmt::format("{}:{}: not TOML: {}", where, error.source().begin.line, what));
  }
}

void set_value(toml::table& table, const std::string& override_text) {
  const std::size_t equals = override_text.find('=');
  if (equals == std::string::npos || equals == 0)
    throw UsageError(fmt::format("--set {}: wanted KEY=VALUE, as in train.batch_size=64", override_text));
  const std::string key = override_text.substr(0, equals), value = override_text.substr(equals + 1);
  toml::table parsed;
  try {
    parsed = toml::parse("value = " + value);
  } catch (const toml::parse_error&) {
    parsed.clear();
  }
  if (parsed.size() != 1) parsed = toml::table{{"value", value}};
  toml::table* at = &table;
  std::size_t begin = 0;
  for (std::size_t dot = key.find('.'); dot != std::string::npos; begin = dot + 1, dot = key.find('.', begin)) {
    toml::node& next = at->insert(key.substr(begin, dot - begin), toml::table{}).first->second;
    if (!next.is_table()) refuse(key.substr(0, dot), "a section", next);
    at = next.as_table();
  }
  const std::string last = key.substr(begin);
  if (last == "epochs") at->erase("steps");  // the newer word counts
  if (last == "steps") at->erase("epochs");
  at->insert_or_assign(last, std::move(*parsed.get("value")));
}

void check_stage(const std::string& name, const toml::table& given, const StageOptions& s) {
  if (given.at_path(name + ".steps") && given.at_path(name + ".epochs"))
    throw UsageError(fmt::format("{0}.epochs: wanted {0}.steps or {0}.epochs, got both", name));
  const Objectives& o = s.objectives;
  if (s.runs() && o.mgm == 0 && o.cell_cell == 0 && o.cell_text == 0 && o.matching == 0)
    throw UsageError(fmt::format("{0}.objectives: all weights are 0, so there is nothing to train; give one, or set {0}.steps = 0", name));
  if (s.epochs == 0 && s.steps > 0) (void)warmup_steps(s, s.steps, name);
  if (s.warmup < 1 && s.warmup > 0.5) (void)warmup_steps(s, 2, name);
}

void check_together(const Options& o) {
  if (o.data.corpus.empty()) throw UsageError("data.corpus: wanted at least one corpus, got none");
  if (o.train.batch_size % o.train.accumulate != 0) {
    throw UsageError(
        fmt::format("train.batch_size: wanted a multiple of train.accumulate = {}, got {}", o.train.accumulate, o.train.batch_size));
  }
  if (!o.data.holdout_by.empty() && o.data.holdout == 0) throw UsageError("data.holdout_by: wanted data.holdout above 0 with it, got 0");
}

}  // namespace

Options::Options() {
  stage2.lr = 1e-5;
  stage2.objectives = {1, 1, 1, 1};
}

Options parse_options(const std::string& toml_text, const std::vector<std::string>& overrides, const std::string& where) {
  toml::table given = parse_toml(toml_text, where);
  for (const std::string& text : overrides) set_value(given, text);
  refuse_unknown(given, "", key_names());
  Options options;
  each_key(options, [&](const Key& key, auto& value, const auto&... rule) {
    if (const toml::node_view<toml::node> node = given.at_path(key.name)) take(key.name, value, *node.node(), rule...);
  });
  check_stage("stage1", given, options.stage1);
  check_stage("stage2", given, options.stage2);
  check_together(options);
  return options;
}

Options read_options(const std::filesystem::path& file, const std::vector<std::string>& overrides) {
  const std::string text = [&] {
    try {
      return read_file(file, size_t{16} << 20);
    } catch (const DataError& error) {
      throw UsageError(error.what());
    }
  }();
  return parse_options(text, overrides, file.string());
}

std::string to_toml(const Options& options) {
  std::string text, section;
  each_key(options, [&](const Key& key, const auto& value, const auto&...) {
    const std::size_t dot = key.name.rfind('.');
    const std::string here = key.name.substr(0, dot), word = key.name.substr(dot + 1);
    if (here != section) text += fmt::format("{}[{}]\n", text.empty() ? "" : "\n", section = here);
    const bool by_epochs = here.starts_with("stage") && options.stage(here.starts_with("stage1") ? 1 : 2).epochs > 0;
    if ((word == "steps" && by_epochs) || (word == "epochs" && !by_epochs)) return;  // one of the two
    text += fmt::format("{} = {}\n", word, shown(value));
  });
  return text;
}

void require_resumable(const Options& before, const Options& now) {
  std::map<std::string, std::string> old;
  each_key(before, [&](const Key& key, const auto& value, const auto&...) { old[key.name] = shown(value); });
  each_key(now, [&](const Key& key, const auto& value, const auto&...) {
    if (key.resume == OnResume::free || old[key.name] == shown(value)) return;
    throw UsageError(fmt::format(
        "{}: was {} when this run started and is {} now; a resumed run keeps it: undo the change or start a run in another folder",
        key.name, old[key.name], shown(value)));
  });
}

}  // namespace lc
