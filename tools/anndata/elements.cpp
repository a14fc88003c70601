#include "tools/anndata/elements.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <unordered_set>
#include <utility>

#include "engine/errors.h"

namespace lc {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<std::pair<std::string_view, std::string_view>, 9> kVersions = {{
    {"anndata", "0.1.0"},
    {"array", "0.2.0"},
    {"categorical", "0.2.0"},
    {"csr_matrix", "0.1.0"},
    {"dataframe", "0.2.0"},
    {"dict", "0.1.0"},
    {"numeric-scalar", "0.2.0"},
    {"string", "0.2.0"},
    {"string-array", "0.2.0"},
}};

bool all_of(const Json& array, bool (Json::*is)() const noexcept) {
  return std::all_of(array.begin(), array.end(), [&](const Json& entry) { return (entry.*is)(); });
}

template <class T>
std::vector<T> values_of(const Json& array) {
  std::vector<T> out;
  for (const Json& entry : array) out.push_back(entry.get<T>());
  return out;
}

void write_table(const Hdf5& parent, std::string_view name, const Json& rows) {
  std::vector<double> values;
  const size_t width = rows.front().size();
  for (const Json& row : rows) {
    if (row.size() != width || !all_of(row, &Json::is_number))
      throw ShapeError(fmt::format("anndata: {}: wanted rows of numbers of one length", parent.where(name)));
    const std::vector<double> entries = values_of<double>(row);
    values.insert(values.end(), entries.begin(), entries.end());
  }
  write_array<double>(parent, name, values, {rows.size(), width});
}

void write_list(const Hdf5& parent, std::string_view name, const Json& array) {
  if (!array.empty() && all_of(array, &Json::is_string)) {
    write_string_array(parent, name, values_of<std::string>(array));
  } else if (!array.empty() && all_of(array, &Json::is_boolean)) {
    std::vector<H5Bool> flags;
    for (const Json& entry : array) flags.push_back(entry.get<bool>() ? H5Bool::yes : H5Bool::no);
    write_array<H5Bool>(parent, name, flags, {flags.size()});
  } else if (!array.empty() && all_of(array, &Json::is_number_integer)) {
    write_array<std::int64_t>(parent, name, values_of<std::int64_t>(array), {array.size()});
  } else if (all_of(array, &Json::is_number)) {
    write_array<double>(parent, name, values_of<double>(array), {array.size()});
  } else if (all_of(array, &Json::is_array)) {
    write_table(parent, name, array);
  } else {
    throw ShapeError(fmt::format("anndata: {}: wanted entries of one kind", parent.where(name)));
  }
}

}  // namespace

void mark(const Hdf5& object, std::string_view encoding) {
  const auto version = std::find_if(kVersions.begin(), kVersions.end(), [&](const auto& entry) { return entry.first == encoding; });
  if (version == kVersions.end()) throw ShapeError(fmt::format("anndata: unknown encoding '{}'", encoding));
  object.set("encoding-type", encoding);
  object.set("encoding-version", version->second);
}

Hdf5 write_dict(const Hdf5& parent, std::string_view path) {
  if (parent.has(path)) return parent.group(path);
  Hdf5 group = parent.group(path);
  mark(group, "dict");
  return group;
}

Hdf5 write_frame(const Hdf5& parent, std::string_view path, std::span<const std::string> index) {
  Hdf5 frame = parent.group(path);
  mark(frame, "dataframe");
  frame.set("_index", "_index");
  frame.set("column-order", std::vector<std::string>());
  write_string_array(frame, "_index", index);
  return frame;
}

void add_to_column_order(const Hdf5& frame, const std::vector<std::string>& columns_before, std::string_view column) {
  if (std::find(columns_before.begin(), columns_before.end(), column) != columns_before.end()) return;
  std::vector<std::string> columns = columns_before;
  columns.emplace_back(column);
  frame.set("column-order", columns);
}

void write_string_array(const Hdf5& parent, std::string_view path, std::span<const std::string> values) {
  mark(parent.write_strings(path, values, {.gzip = values.size() > 64 ? 4 : 0}), "string-array");
}

void write_categorical(const Hdf5& parent, std::string_view path, const Categorical& values) {
  const std::unordered_set<std::string_view> distinct(values.categories.begin(), values.categories.end());
  if (distinct.size() != values.categories.size())
    throw ShapeError(fmt::format("anndata: {}: wanted distinct categories", parent.where(path)));
  const Hdf5 group = parent.group(path);
  mark(group, "categorical");
  group.set("ordered", values.ordered == Ordered::yes ? H5Bool::yes : H5Bool::no);
  write_string_array(group, "categories", values.categories);
  const Hdf5::Shape shape{values.codes.size()};
  if (values.categories.size() <= 127) {
    write_array<std::int8_t>(group, "codes", std::vector<std::int8_t>(values.codes.begin(), values.codes.end()), shape);
  } else if (values.categories.size() <= 32767) {
    write_array<std::int16_t>(group, "codes", std::vector<std::int16_t>(values.codes.begin(), values.codes.end()), shape);
  } else {
    write_array<std::int32_t>(group, "codes", values.codes, shape);
  }
}

void write_json(const Hdf5& parent, std::string_view name, const Json& value) {
  if (value.is_null()) return;
  if (name.empty() || name.find('/') != std::string_view::npos)
    throw ShapeError(fmt::format("anndata: wanted a key without '/', got '{}'", name));
  if (value.is_object()) {
    const Hdf5 group = write_dict(parent, name);
    for (const auto& [key, entry] : value.items()) write_json(group, key, entry);
  } else if (value.is_array()) {
    write_list(parent, name, value);
  } else if (value.is_string()) {
    mark(parent.write_string(name, value.get<std::string>()), "string");
  } else if (value.is_boolean()) {
    mark(parent.write_scalar(name, value.get<bool>() ? H5Bool::yes : H5Bool::no), "numeric-scalar");
  } else if (value.is_number_integer()) {
    mark(parent.write_scalar(name, value.get<std::int64_t>()), "numeric-scalar");
  } else {
    mark(parent.write_scalar(name, value.get<double>()), "numeric-scalar");
  }
}

}  // namespace lc
