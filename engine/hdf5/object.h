// Inside of the process that reads files (engine/hdf5/server.cpp): an open file, group or dataset through libhdf5; copying copies the
// handle. Everybody else includes engine/hdf5.h, which says the same from outside.
#pragma once
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "engine/hdf5/types.h"

namespace lc {

enum class H5Open : std::uint8_t { read, edit, create };

class H5Object {
 public:
  // descriptor: of the file, open already; closed with it. path: for messages.
  static H5Object open(int descriptor, const std::string& path, H5Open how);
  void close() const;

  std::string where(std::string_view path = {}) const;
  std::string path() const { return path_; }
  bool has(std::string_view path) const;
  bool is_group() const;
  bool is_dataset() const;
  H5Object at(std::string_view path) const;
  std::vector<std::string> children() const;
  H5Object group(std::string_view path) const;
  void remove(std::string_view path) const;
  void copy_from(const H5Object& source, std::string_view path) const;

  bool has_attribute(std::string_view attribute) const;
  std::vector<std::string> attributes() const;
  std::string text(std::string_view attribute) const;
  std::string text_or(std::string_view attribute, std::string_view otherwise) const;
  std::vector<std::string> texts(std::string_view attribute) const;
  std::int64_t integer(std::string_view attribute) const;
  std::vector<std::int64_t> integers(std::string_view attribute) const;
  H5Object referenced(std::string_view attribute) const;
  void set_text(std::string_view attribute, std::string_view text) const;
  void set_integer(std::string_view attribute, std::int64_t value) const;
  void set_double(std::string_view attribute, double value) const;
  void set_bool(std::string_view attribute, H5Bool value) const;
  void set_texts(std::string_view attribute, const std::vector<std::string>& texts) const;
  void set_integers(std::string_view attribute, const std::vector<std::int64_t>& values) const;
  void set_reference(std::string_view attribute, const H5Object& target) const;
  void copy_attributes(const H5Object& source) const;

  size_t item_bytes() const;
  H5Shape shape() const;
  bool is_null() const;
  std::optional<std::uint64_t> contiguous_offset() const;
  H5Facts facts() const;
  std::vector<H5Piece> pieces(std::uint64_t first, std::uint64_t end) const;  // of chunks first … end − 1 of the grid, last axis fastest
  std::vector<std::byte> read(H5Item item, std::uint64_t begin, std::uint64_t end) const;  // rows, converted
  std::vector<std::string> read_strings(std::uint64_t begin, std::uint64_t end) const;

  H5Object allocate(H5Item item, std::string_view path, const H5Shape& shape, const H5Storage& storage) const;
  H5Object allocate_like(const H5Object& source, std::string_view path, std::uint64_t rows) const;
  H5Object allocate_strings(std::string_view path, std::uint64_t count, const H5Storage& storage) const;
  H5Object write_string(std::string_view path, std::string_view value) const;
  void write(H5Item item, std::uint64_t begin, std::span<const std::byte> values) const;
  void append(H5Item item, std::span<const std::byte> values) const;
  void write_strings(std::uint64_t begin, const std::vector<std::string>& values) const;
  void append_strings(const std::vector<std::string>& values) const;
  void copy_rows(const H5Object& source, const std::vector<H5Range>& ranges, std::uint64_t begin) const;

 private:
  struct File;
  struct Handle;
  H5Object(std::shared_ptr<File> file, std::int64_t id, std::string path);
  std::int64_t id() const;
  H5Kind kind() const;
  std::string join(std::string_view path) const;
  H5Object made(std::string_view path, std::int64_t id) const;
  H5Layout layout() const;
  void refuse_links(const std::string& step) const;
  H5Object create_dataset(std::string_view path, std::int64_t type, const H5Shape& shape, const H5Storage& storage) const;
  void set_attribute(std::string_view attribute, std::int64_t type, std::optional<size_t> count, const void* data) const;
  static std::int64_t memory_type(H5Item item);
  std::uint64_t items_in(std::uint64_t begin, std::uint64_t end) const;
  void load(std::int64_t type, std::uint64_t begin, std::uint64_t count, void* out) const;
  void store(std::int64_t type, std::uint64_t begin, std::uint64_t count, const void* data) const;
  std::uint64_t extend(std::uint64_t count) const;

  std::shared_ptr<File> file_;
  std::shared_ptr<Handle> handle_;  // closed before the file
  std::string path_;
};

}  // namespace lc
