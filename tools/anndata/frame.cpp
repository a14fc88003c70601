#include "tools/anndata/frame.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "engine/errors.h"

namespace lc {

namespace {

// A column before it is text or number: exactly one of the three is filled.
struct Column {
  std::vector<std::string> texts;
  std::vector<double> numbers;
  std::vector<std::int64_t> integers;
  H5Kind kind = H5Kind::other;
  std::vector<std::uint8_t> missing;  // empty: nothing is
};

Column plain_column(const Hdf5& dataset) {
  Column column;
  column.kind = dataset.kind();
  if (dataset.is_null())
    column.kind = H5Kind::text;
  else if (dataset.shape().size() != 1)
    throw DataError(fmt::format("{}: wanted a column, found {} axes", dataset.where(), dataset.shape().size()));
  else if (column.kind == H5Kind::text)
    column.texts = dataset.read_strings();
  else if (column.kind == H5Kind::floating)
    column.numbers = dataset.read<double>();
  else if (column.kind == H5Kind::integer || column.kind == H5Kind::boolean)
    column.integers = dataset.read<std::int64_t>();
  else
    throw DataError(fmt::format("{}: a column of a type this program does not read", dataset.where()));
  return column;
}

std::string text_of(double value) {
  if (value == std::trunc(value) && std::abs(value) < 1e15) return fmt::format("{:.1f}", value);  // as Python prints it
  return fmt::format("{}", value);
}

std::vector<std::string> texts_of(const Column& column) {
  std::vector<std::string> texts = column.texts;
  for (double value : column.numbers) texts.push_back(std::isnan(value) ? std::string() : text_of(value));
  for (std::int64_t value : column.integers)
    texts.push_back(column.kind == H5Kind::boolean ? (value != 0 ? "True" : "False") : fmt::format("{}", value));
  for (size_t i = 0; i < column.missing.size(); ++i)
    if (column.missing[i]) texts[i].clear();
  return texts;
}

template <class T>
Categorical distinct(const std::vector<T>& values, const std::vector<std::string>& texts) {
  std::map<T, std::int32_t> codes;
  for (size_t i = 0; i < values.size(); ++i)
    if (!texts[i].empty()) codes.emplace(values[i], 0);
  std::map<std::string, std::int32_t> by_text;  // equal texts (0.1f and 0.1) are one category
  Categorical out;
  for (auto& [value, code] : codes) {
    const size_t first = static_cast<size_t>(std::find(values.begin(), values.end(), value) - values.begin());
    const auto [entry, added] = by_text.emplace(texts[first], static_cast<std::int32_t>(out.categories.size()));
    if (added) out.categories.push_back(texts[first]);
    code = entry->second;
  }
  for (size_t i = 0; i < values.size(); ++i) out.codes.push_back(texts[i].empty() ? -1 : codes.at(values[i]));
  return out;
}

Column column_of(const Hdf5& member);

Categorical categorical_from(const Hdf5& codes, const Hdf5& categories, Ordered ordered) {
  Categorical out{codes.read<std::int32_t>(), texts_of(column_of(categories)), ordered};
  for (size_t i = 0; i < out.codes.size(); ++i)
    if (out.codes[i] < -1 || out.codes[i] >= static_cast<std::int64_t>(out.categories.size()))
      throw DataError(fmt::format("{}: row {} has code {}, there are {} categories; the file is damaged", codes.where(), i, out.codes[i],
                                  out.categories.size()));
  return out;
}

Ordered ordered_of(const Hdf5& object) {
  return object.has_attribute("ordered") && object.integer("ordered") != 0 ? Ordered::yes : Ordered::no;
}

bool is_categorical(const Hdf5& member) {
  return member.is_group() ? member.has_dataset("codes") && member.has("categories") : member.has_attribute("categories");
}

Categorical read_categorical(const Hdf5& member) {
  if (member.is_group()) return categorical_from(member.at("codes"), member.at("categories"), ordered_of(member));
  const Hdf5 categories = member.referenced("categories");  // anndata 0.7: the codes are the column, the categories lie in __categories
  return categorical_from(member, categories, ordered_of(categories));
}

Column column_of(const Hdf5& member) {
  if (is_categorical(member)) {
    const Categorical values = read_categorical(member);
    Column column;
    column.kind = H5Kind::text;
    for (size_t i = 0; i < values.codes.size(); ++i) column.texts.push_back(values.label(i));
    return column;
  }
  if (member.is_dataset()) return plain_column(member);
  if (!member.has_dataset("values"))
    throw DataError(fmt::format("{}: encoding '{}' is not one of those this program reads", member.where(), encoding_of(member)));
  Column column = plain_column(member.at("values"));
  if (member.has_dataset("mask")) column.missing = member.at("mask").read<std::uint8_t>();
  if (!column.missing.empty() && column.missing.size() != member.at("values").rows())
    throw DataError(fmt::format("{}: values and mask differ in length; the file is damaged", member.where()));
  return column;
}

}  // namespace

std::string encoding_of(const Hdf5& object) { return object.text_or("encoding-type", ""); }

Categorical categorical_of(const std::vector<std::string>& values) { return distinct(values, values); }

Frame::Frame(Hdf5 group) : group_(std::move(group)) {
  if (!group_.is_group())
    throw DataError(
        fmt::format("{}: a table as anndata 0.6 and older wrote it; open the file with anndata ≥ 0.8 and save it again", group_.where()));
  index_name_ = group_.text_or("_index", group_.has("_index") || !group_.has("index") ? "_index" : "index");
  const Hdf5 index = group_.at(index_name_);
  if (group_.has_attribute("column-order")) {
    columns_ = group_.texts("column-order");
  } else {
    for (const std::string& name : group_.children())
      if (name != index_name_ && name != "__categories") columns_.push_back(name);
  }
  const Hdf5 values = index.is_dataset() ? index : index.at(index.has("codes") ? "codes" : "values");
  rows_ = values.rows();
}

bool Frame::has(std::string_view column) const { return std::find(columns_.begin(), columns_.end(), column) != columns_.end(); }

std::vector<std::string> Frame::index() const { return texts_of(column_of(group_.at(index_name_))); }

Hdf5 Frame::member(std::string_view column) const {
  if (!has(column)) {
    throw DataError(fmt::format("{}: no column '{}'; it has: {}", group_.where(), column,
                                columns_.empty() ? "none" : fmt::format("{}", fmt::join(columns_, ", "))));
  }
  return group_.at(column);
}

Categorical Frame::categorical(std::string_view column) const {
  const Hdf5 found = member(column);
  Categorical out;
  if (is_categorical(found)) {
    out = read_categorical(found);
  } else {
    const Column values = column_of(found);
    const std::vector<std::string> texts = texts_of(values);
    if (!values.numbers.empty())
      out = distinct(values.numbers, texts);
    else if (!values.integers.empty())
      out = distinct(values.integers, texts);
    else
      out = distinct(texts, texts);
  }
  if (out.codes.size() != rows_)
    throw DataError(fmt::format("{}: {} entries, wanted {}; the file is damaged", found.where(), out.codes.size(), rows_));
  return out;
}

std::vector<std::string> Frame::strings(std::string_view column) const {
  const Hdf5 found = member(column);
  std::vector<std::string> out = texts_of(column_of(found));
  if (out.size() != rows_) throw DataError(fmt::format("{}: {} entries, wanted {}; the file is damaged", found.where(), out.size(), rows_));
  return out;
}

std::vector<double> Frame::numbers(std::string_view column) const {
  const Hdf5 found = member(column);
  const Column values = column_of(found);
  if (values.kind == H5Kind::text) throw DataError(fmt::format("{}: wanted numbers, found text", found.where()));
  std::vector<double> out = values.numbers;
  out.insert(out.end(), values.integers.begin(), values.integers.end());
  for (size_t i = 0; i < values.missing.size(); ++i)
    if (values.missing[i]) out[i] = std::numeric_limits<double>::quiet_NaN();
  if (out.size() != rows_) throw DataError(fmt::format("{}: {} entries, wanted {}; the file is damaged", found.where(), out.size(), rows_));
  return out;
}

}  // namespace lc
