// A message between a process and its reader of files: values in the order they were put. What comes out of one is not trusted.
#pragma once
#include <cstddef>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "engine/errors.h"
#include "engine/hdf5/types.h"

namespace lc::h5 {

class Wire {
 public:
  Wire() = default;
  explicit Wire(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {}
  const std::vector<std::byte>& bytes() const { return bytes_; }
  std::vector<std::byte>& bytes() { return bytes_; }

  template <class T>
  requires std::is_arithmetic_v<T> || std::is_enum_v<T>
  void put(T value) { raw(&value, sizeof value); }
  void put(std::string_view text) { put_list(std::as_bytes(std::span(text.data(), text.size()))); }
  void put(const std::string& text) { put(std::string_view(text)); }
  void put(const char* text) { put(std::string_view(text)); }
  void put(std::span<const std::byte> list) { put_list(list); }
  template <class T>
  void put(const std::vector<T>& list) {
    if constexpr (std::is_trivially_copyable_v<T>) {
      put_list(std::as_bytes(std::span(list)));
    } else {
      put<std::uint64_t>(list.size());
      for (const T& value : list) put(value);
    }
  }
  template <class T>
  void put(const std::optional<T>& value) {
    put(value.has_value());
    if (value) put(*value);
  }
  void put(std::span<const std::string> list) {
    put<std::uint64_t>(list.size());
    for (const std::string& value : list) put(value);
  }
  void put(const H5Storage& s) { put(s.gzip), put(s.chunk), put(s.grows); }
  void put(const H5Filter& f) { put(f.id), put(f.values); }
  void put(const H5Layout& l) { put(l.item), put(l.offset), put(l.chunk), put(l.filters); }
  void put(const H5Facts& f) { put(f.kind), put(f.shape), put(f.layout); }

  template <class T>
  T get() {
    if constexpr (std::is_same_v<T, bool>) {
      return get<std::uint8_t>() != 0;
    } else if constexpr (std::is_same_v<T, H5Item>) {
      const auto value = static_cast<H5Item>(get<std::uint8_t>());
      if (value > H5Item::boolean) senseless();
      return value;
    } else if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T>) {
      T value;
      std::memcpy(&value, take(sizeof value).data(), sizeof value);
      return value;
    } else if constexpr (std::is_same_v<T, std::string>) {
      const auto list = take(get<std::uint64_t>());
      return std::string(reinterpret_cast<const char*>(list.data()), list.size());
    } else if constexpr (std::is_same_v<T, H5Storage>) {
      return {get<int>(), get<H5Shape>(), get<bool>()};
    } else if constexpr (std::is_same_v<T, H5Filter>) {
      return {get<std::int32_t>(), get<std::vector<std::uint32_t>>()};
    } else if constexpr (std::is_same_v<T, H5Layout>) {
      return {get<std::optional<H5Item>>(), get<std::optional<std::uint64_t>>(), get<H5Shape>(), get<std::vector<H5Filter>>()};
    } else if constexpr (std::is_same_v<T, H5Facts>) {
      return {get<H5Kind>(), get<H5Shape>(), get<H5Layout>()};
    } else {
      T made;
      fill(made);
      return made;
    }
  }

 private:
  [[noreturn]] static void senseless() { throw DataError("what the reader of files answers does not make sense; the file is damaged"); }
  void raw(const void* from, size_t count) {
    const auto* begin = static_cast<const std::byte*>(from);
    bytes_.insert(bytes_.end(), begin, begin + count);
  }
  void put_list(std::span<const std::byte> list) {
    put<std::uint64_t>(list.size());
    raw(list.data(), list.size());
  }
  std::span<const std::byte> take(std::uint64_t count) {
    if (count > bytes_.size() - read_) senseless();
    read_ += count;
    return std::span(bytes_).subspan(read_ - count, count);
  }
  template <class T>
  void fill(std::vector<T>& list) {
    const auto count = get<std::uint64_t>();
    if constexpr (std::is_trivially_copyable_v<T>) {
      const auto bytes = take(count);
      list.resize(bytes.size() / sizeof(T));
      if (!list.empty()) std::memcpy(list.data(), bytes.data(), list.size() * sizeof(T));
    } else {
      for (std::uint64_t i = 0; i < count; ++i) list.push_back(get<T>());
    }
  }
  template <class T>
  void fill(std::optional<T>& value) {
    if (get<bool>()) value = get<T>();
  }

  std::vector<std::byte> bytes_;
  size_t read_ = 0;
};

}  // namespace lc::h5
