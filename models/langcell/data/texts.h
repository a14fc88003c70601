// T.json: what each label means in words. Label -> string, or list of strings, or {"text": string or list, "ontology_id": "CL:0000236"}.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace lc {

struct LabelTexts {
  std::string label;
  std::vector<std::string> texts;  // at least one; their scores are averaged
  std::string ontology_id;         // empty: not known
  std::vector<std::string> parts =
      {};  // of a text from a template, field by field: "cell type: B cell. A lymphocyte …;", "" where not known
};

struct Texts {
  std::vector<LabelTexts> labels;        // in the order of the file
  std::vector<std::string> fields = {};  // of a template, in its order; empty: the texts were written by hand

  // DataError naming file and label: a label twice, an empty text, one text twice, another shape of JSON.
  static Texts read(const std::filesystem::path& path);
  static Texts parse(std::string_view json, std::string_view where);

  std::int64_t index_of(std::string_view label) const;  // -1: not there
  std::vector<std::string> all() const;                 // every string, label by label
};

std::int32_t cell_ontology_number(std::string_view ontology_id);  // CL:0000236 -> 236; -1: no CL id

}  // namespace lc
