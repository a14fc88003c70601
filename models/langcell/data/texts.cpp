// The JSON library keeps the last of two equal keys in silence, so a callback watches the keys while it parses.
#include "models/langcell/data/texts.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "engine/atomic_file.h"
#include "engine/errors.h"

namespace lc {

namespace {

using Json = nlohmann::ordered_json;

Json parse_watching_keys(std::string_view text, std::string_view where) {
  std::vector<std::set<std::string>> keys;  // of each open object
  const auto watch = [&](int, Json::parse_event_t event, Json& parsed) {
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second)
      throw DataError(fmt::format("{}: '{}' occurs twice; each label may have one entry (a list holds several texts)", where,
                                  parsed.get<std::string>()));
    return true;
  };
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  try {
    return Json::parse(text, watch);
  } catch (const Json::parse_error& error) {
    const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(std::min(error.byte, text.size())), '\n');
    throw DataError(fmt::format("{}:{}: not valid JSON in UTF-8 (near byte {}); wanted an object of label: text", where, line, error.byte));
  }
}

std::string text_of(const Json& value, const std::string& place) {
  if (!value.is_string()) throw DataError(fmt::format("{}: wanted a text, found {}", place, value.type_name()));
  std::string text = value.get<std::string>();
  if (text.find_first_not_of(" \t\r\n") == std::string::npos) throw DataError(fmt::format("{}: the text is empty", place));
  return text;
}

std::vector<std::string> texts_of(const Json& value, const std::string& place) {
  if (!value.is_array()) return {text_of(value, place)};
  if (value.empty()) throw DataError(fmt::format("{}: the list of texts is empty", place));
  std::vector<std::string> texts;
  for (const Json& entry : value) texts.push_back(text_of(entry, place));
  return texts;
}

LabelTexts label_of(const std::string& label, const Json& value, const std::string& place) {
  if (!value.is_object()) {
    if (!value.is_string() && !value.is_array())
      throw DataError(
          fmt::format("{}: wanted a text, a list of texts or {{\"text\", \"ontology_id\"}}, found {}", place, value.type_name()));
    return {label, texts_of(value, place), {}};
  }
  for (const auto& [key, ignored] : value.items())
    if (key != "text" && key != "ontology_id")
      throw DataError(fmt::format("{}: unknown key '{}'; known are text and ontology_id", place, key));
  if (!value.contains("text")) throw DataError(fmt::format("{}: no \"text\"", place));
  const std::string id = value.contains("ontology_id") ? text_of(value["ontology_id"], place + " (ontology_id)") : std::string();
  return {label, texts_of(value["text"], place), id};
}

}  // namespace

Texts Texts::read(const std::filesystem::path& path) { return parse(read_file(path), path.string()); }

Texts Texts::parse(std::string_view json, std::string_view where) {
  const Json root = parse_watching_keys(json, where);
  if (!root.is_object()) throw DataError(fmt::format("{}: wanted an object of label: text, found {}", where, root.type_name()));
  if (root.empty()) throw DataError(fmt::format("{}: no labels", where));
  Texts texts;
  std::map<std::string, std::string> owner;
  for (const auto& [label, value] : root.items()) {
    const std::string place = fmt::format("{}: label '{}'", where, label);
    if (label.empty()) throw DataError(fmt::format("{}: a label is the empty string", where));
    texts.labels.push_back(label_of(label, value, place));
    for (const std::string& text : texts.labels.back().texts) {
      const auto [entry, is_new] = owner.emplace(text, label);
      if (!is_new) throw DataError(fmt::format("{}: the same text as label '{}'; nothing could tell them apart", place, entry->second));
    }
  }
  return texts;
}

std::int64_t Texts::index_of(std::string_view label) const {
  const auto found = std::find_if(labels.begin(), labels.end(), [&](const LabelTexts& entry) { return entry.label == label; });
  return found == labels.end() ? -1 : found - labels.begin();
}

std::vector<std::string> Texts::all() const {
  std::vector<std::string> out;
  for (const LabelTexts& entry : labels) out.insert(out.end(), entry.texts.begin(), entry.texts.end());
  return out;
}

std::int32_t cell_ontology_number(std::string_view id) {
  std::int32_t number = -1;
  if (!id.starts_with("CL:")) return -1;
  const auto [end, error] = std::from_chars(id.data() + 3, id.data() + id.size(), number);
  return error == std::errc{} && end == id.data() + id.size() && number >= 0 ? number : -1;
}

}  // namespace lc
