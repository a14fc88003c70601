// What reading a model folder needs: files that are a bad model (4) when missing, and JSON whose errors name file and key.
#pragma once
#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include "engine/atomic_file.h"
#include "engine/errors.h"

namespace lc {

// A file of a model folder that is missing or damaged is a bad model (4), whoever reads it.
template <class F>
auto as_model_error(const F& read) {
  try {
    return read();
  } catch (const DataError& error) {
    throw ModelError(error.what());
  }
}

inline bool is_file(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(path, ignored);
}

class JsonFile {
 public:
  explicit JsonFile(const std::filesystem::path& path) : where_(path.string()) {
    const std::string text = as_model_error([&] { return read_file(path, size_t{64} << 20); });
    json_ = nlohmann::json::parse(text, nullptr, false);
    if (!json_.is_object())
      throw ModelError(fmt::format("{}: wanted a JSON object; the file is damaged: take a complete copy of the model folder", where_));
  }

  const std::string& where() const { return where_; }
  bool has(const std::string& key) const { return json_.contains(key); }
  std::vector<std::string> keys() const {
    std::vector<std::string> names;
    for (const auto& item : json_.items()) names.push_back(item.key());
    return names;
  }
  JsonFile object(const std::string& key) const {
    const nlohmann::json& value = at(key);
    if (!value.is_object()) refuse(key, "an object");
    return JsonFile(where_ + ":" + key, value);
  }
  template <class T>
  T get(const std::string& key) const {
    const nlohmann::json& value = at(key);
    if constexpr (std::is_same_v<T, bool>) {
      if (!value.is_boolean()) refuse(key, "true or false");
    } else if constexpr (std::is_same_v<T, std::string>) {
      if (!value.is_string()) refuse(key, "a text");
    } else if constexpr (std::is_floating_point_v<T>) {
      if (!value.is_number()) refuse(key, "a number");
    } else if constexpr (std::is_unsigned_v<T>) {
      if (!value.is_number_unsigned()) refuse(key, "a whole number from 0");
    } else if constexpr (std::is_integral_v<T>) {
      if (!value.is_number_integer()) refuse(key, "a whole number");
    } else if (!value.is_array()) {
      refuse(key, "a list of texts");
    }
    try {
      return value.get<T>();
    } catch (const nlohmann::json::exception&) {
      refuse(key, "a list of texts");
    }
  }
  template <class T>
  T get_or(const std::string& key, T otherwise) const {
    return has(key) ? get<T>(key) : std::move(otherwise);
  }
  template <class T>
  T between(const std::string& key, T low, T high) const {
    const T value = get<T>(key);
    if (!(value >= low && value <= high)) refuse(key, fmt::format("a value from {} to {}", low, high));
    return value;
  }
  [[noreturn]] void refuse(const std::string& key, const std::string& wanted) const {
    const std::string found =
        has(key) ? json_.at(key).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace).substr(0, 60) : "nothing";
    throw ModelError(fmt::format("{}: {}: wanted {}, got {}", where_, key, wanted, found));
  }

 private:
  JsonFile(std::string where, nlohmann::json json) : where_(std::move(where)), json_(std::move(json)) {}
  const nlohmann::json& at(const std::string& key) const {
    if (!has(key)) refuse(key, "a value");
    return json_.at(key);
  }
  std::string where_;
  nlohmann::json json_;
};

}  // namespace lc
