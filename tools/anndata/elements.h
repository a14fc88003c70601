// anndata's elements as anndata ≥ 0.8 writes them: a dataset or group with the attributes encoding-type and encoding-version.
#pragma once
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/hdf5.h"
#include "tools/anndata/frame.h"

namespace lc {

void mark(const Hdf5& object, std::string_view encoding);  // sets the two attributes; a name of this list has one version

Hdf5 write_dict(const Hdf5& parent, std::string_view path);  // a group, opened when it is there
Hdf5 write_frame(const Hdf5& parent, std::string_view path, std::span<const std::string> index);
void add_to_column_order(const Hdf5& frame, const std::vector<std::string>& columns_before, std::string_view column);

void write_string_array(const Hdf5& parent, std::string_view path, std::span<const std::string> values);
void write_categorical(const Hdf5& parent, std::string_view path, const Categorical& values);  // codes in the smallest type
template <H5Value T>
void write_array(const Hdf5& parent, std::string_view path, std::span<const T> values, const Hdf5::Shape& shape) {
  mark(parent.write<T>(path, values, shape, {.gzip = shape.size() == 1 && shape[0] > 64 ? 4 : 0}), "array");
}

// JSON as anndata keeps dictionaries: objects, strings, numbers, booleans, arrays of one of these, arrays of equally long arrays of
// numbers. null is left out. ShapeError: anything else, or a key with '/'.
void write_json(const Hdf5& parent, std::string_view name, const nlohmann::ordered_json& value);

}  // namespace lc
