#include "models/langcell/data/ontology.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "engine/atomic_file.h"
#include "engine/errors.h"
#include "models/langcell/data/plain_text.h"

namespace lc {
namespace {

// Of `"a \"quoted\" text" EXACT [refs]`: the text, and what stands behind it. Without a closing quote: nothing.
struct Quoted {
  std::string text;
  std::string_view rest;
  bool found = false;
};
Quoted quoted(std::string_view value) {
  Quoted q;
  if (!value.starts_with('"')) return q;
  for (size_t i = 1; i < value.size(); ++i) {
    if (value[i] == '"') {
      q.rest = trimmed(value.substr(i + 1)), q.found = true;
      break;
    }
    if (value[i] == '\\' && i + 1 < value.size()) {
      const char c = value[++i];
      q.text += c == 'n' ? ' ' : c == 't' ? ' ' : c;
    } else {
      q.text += value[i];
    }
  }
  return q;
}

// An id or name without trailing comment (` ! name`) and qualifiers (` {…}`), escapes resolved.
std::string plain(std::string_view value) {
  std::string out;
  for (size_t i = 0; i < value.size(); ++i) {
    if (value[i] == '\\' && i + 1 < value.size()) {
      out += value[++i];
    } else if ((value[i] == '!' || value[i] == '{') && i > 0 && value[i - 1] == ' ') {
      break;
    } else {
      out += value[i];
    }
  }
  return std::string(trimmed(out));
}

void take(Term& term, std::string_view tag, std::string_view value) {
  if (tag == "id") {
    term.id = plain(value);
  } else if (tag == "name") {
    term.name = plain(value);
  } else if (tag == "def") {
    if (const Quoted q = quoted(value); q.found) term.definition = q.text;
  } else if (tag == "synonym") {
    if (const Quoted q = quoted(value); q.found && q.rest.starts_with("EXACT")) term.synonyms.push_back(q.text);
  } else if (tag == "is_a") {
    term.parents.push_back(plain(value));
  } else if (tag == "replaced_by") {
    term.replaced_by.push_back(plain(value));
  } else if (tag == "is_obsolete") {
    term.obsolete = plain(value) == "true";
  }
}

}  // namespace

Ontology Ontology::read(const std::filesystem::path& path) { return parse(read_file(path), path.string()); }

Ontology Ontology::parse(std::string_view text, std::string_view where) {
  Ontology o;
  bool in_term = false;
  size_t number = 0, header = 0;
  const auto finish = [&] {
    if (!in_term || o.terms_.empty()) return;
    const Term& term = o.terms_.back();
    if (term.id.empty()) throw DataError(fmt::format("{}:{}: the [Term] before has no id", where, number));
    if (!o.by_id_.emplace(term.id, o.terms_.size() - 1).second)
      throw DataError(fmt::format("{}:{}: the term '{}' occurs twice", where, number, term.id));
  };
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = trimmed(text.substr(begin, end - begin));
    begin = end + 1, ++number;
    if (line.empty() || line.front() == '!') continue;
    if (line.front() == '[') {
      finish();
      in_term = line == "[Term]";
      if (in_term) o.terms_.emplace_back();
      continue;
    }
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos)
      throw DataError(fmt::format("{}:{}: '{}' is no line of an OBO file (tag: value)", where, number, line.substr(0, 60)));
    header += !in_term && line.starts_with("format-version:");
    if (in_term) take(o.terms_.back(), line.substr(0, colon), trimmed(line.substr(colon + 1)));
  }
  finish();
  if (o.terms_.empty())
    throw DataError(fmt::format("{}: no [Term]{}; wanted an ontology in OBO form", where, header ? "" : ", no format-version"));
  for (size_t i = 0; i < o.terms_.size(); ++i) {
    const Term& t = o.terms_[i];
    if (t.name.empty()) continue;
    o.by_name_[t.name].push_back(i), o.by_name_folded_[folded(t.name)].push_back(i);
    for (const std::string& synonym : t.synonyms) o.by_synonym_[synonym].push_back(i), o.by_synonym_folded_[folded(synonym)].push_back(i);
  }
  return o;
}

const Term* Ontology::find(std::string_view id) const {
  const auto found = by_id_.find(std::string(id));
  return found == by_id_.end() ? nullptr : &terms_[found->second];
}

const Term* Ontology::current(const Term* term) const {
  for (int steps = 0; term && term->obsolete && steps < 8; ++steps)
    term = term->replaced_by.size() == 1 ? find(term->replaced_by.front()) : nullptr;
  return term && !term->obsolete ? term : nullptr;
}

const Term* Ontology::one_of(const Index& index, const std::string& key) const {
  const auto found = index.find(key);
  if (found == index.end()) return nullptr;
  std::set<const Term*> terms;
  for (const size_t i : found->second)
    if (!terms_[i].obsolete) terms.insert(&terms_[i]);
  if (terms.empty())
    for (const size_t i : found->second)
      if (const Term* now = current(&terms_[i])) terms.insert(now);
  return terms.size() == 1 ? *terms.begin() : nullptr;
}

const Term* Ontology::look_up(std::string_view label) const {
  if (const Term* term = find(label)) return current(term);
  const std::string exact(label), any_case = folded(label);
  for (const auto& [index, key] :
       {std::pair(&by_name_, &exact), {&by_synonym_, &exact}, {&by_name_folded_, &any_case}, {&by_synonym_folded_, &any_case}})
    if (const Term* term = one_of(*index, *key)) return term;
  return nullptr;
}

std::vector<const Term*> Ontology::ancestors(const Term& term) const {
  std::vector<const Term*> all = {&term};
  std::set<const Term*> seen = {&term};
  for (size_t i = 0; i < all.size(); ++i) {
    for (const std::string& id : all[i]->parents)
      if (const Term* parent = find(id); parent && seen.insert(parent).second) all.push_back(parent);
  }
  return all;
}

}  // namespace lc
