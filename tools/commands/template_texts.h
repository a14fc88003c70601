// Texts for the cells of files from their columns of obs, and which cells of a CELLxGENE file count.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "models/langcell/data/text_template.h"
#include "tools/anndata/cells.h"

namespace lc {

// One group for each combination of fields. Files are added before any of them is asked for.
class TemplateTexts {
 public:
  TemplateTexts(TextTemplate fields, FieldWords words) : template_(std::move(fields)), words_(std::move(words)) {
    for (const TemplateField& field : template_.fields) texts_.fields.push_back(field.column);
  }
  // The group of each cell, −1: all fields say nothing. Memory: 12 bytes a cell of this file. DataError: none of the columns is there.
  std::vector<std::int32_t> groups_of(const CellTable& obs, const std::string& where);
  const Texts& texts() const { return texts_; }
  const FieldWords& words() const { return words_; }

 private:
  std::int32_t group_of(const std::vector<std::string>& parts, const std::string& id);

  TextTemplate template_;
  FieldWords words_;
  Texts texts_;
  std::map<std::string, std::int32_t> group_of_text_;
};

// DataError when the file is not as CELLxGENE's schema says: columns that are missing, another organism than human.
void require_cellxgene(const std::filesystem::path& path, const CellTable& obs);
std::vector<char> primary_cells(const CellTable& obs);  // 1 where is_primary_data is true

}  // namespace lc
