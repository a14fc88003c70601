// Files in HDF5, from outside: `Hdf5` is an open file, group or dataset; copying copies the handle. The library itself runs in a process
// of its own (engine/hdf5/server.h), because damaged files crash it and crafted ones lead it to other files; plain numbers are read
// here, from the places it names, on all threads.
// A failed read is a DataError naming file:object, a failed write a ResourceError. Links to other files, data kept in other files and
// filters from plugins are refused. Reading converts numbers as C casts do, but clamps at the range.
#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/hdf5/types.h"

namespace lc {

namespace h5 {
enum class Verb : std::uint8_t;
}

class Hdf5 {
 public:
  using Shape = H5Shape;

  static Hdf5 open(const std::filesystem::path& path);    // read-only, without file locks (they fail on NFS and Lustre)
  static Hdf5 create(const std::filesystem::path& path);  // cuts an existing file
  static Hdf5 edit(const std::filesystem::path& path);    // an existing file, read and write
  void close();  // of a written file: flushes, closes everything in it; ResourceError when the disk is full

  // Objects. Paths are relative to this object; those in between are created when writing.
  std::string where(std::string_view path = {}) const;  // "cells.h5ad:/obs/cell_type", for messages
  std::string name() const;                             // the last part of the path
  bool has(std::string_view path) const;
  bool has_group(std::string_view path) const;
  bool has_dataset(std::string_view path) const;
  bool is_group() const;
  bool is_dataset() const;
  Hdf5 at(std::string_view path) const;       // DataError when it is not there
  std::vector<std::string> children() const;  // by creation where the file tracks it, else by name
  Hdf5 group(std::string_view path) const;    // opened, or made
  void remove(std::string_view path) const;   // nothing happens when it is not there
  void copy_from(const Hdf5& source,
                 std::string_view path) const;  // source object with everything below and its attributes, also from another file

  // Attributes of this object.
  bool has_attribute(std::string_view attribute) const;
  std::vector<std::string> attributes() const;
  std::string text(std::string_view attribute) const;
  std::string text_or(std::string_view attribute, std::string_view otherwise) const;  // also when the attribute is no text
  std::vector<std::string> texts(std::string_view attribute) const;                   // an empty attribute of any type gives an empty list
  std::int64_t integer(std::string_view attribute) const;
  std::vector<std::int64_t> integers(std::string_view attribute) const;
  Hdf5 referenced(std::string_view attribute) const;  // the object that an object reference points to
  void set(std::string_view attribute, std::string_view text) const;
  void set(std::string_view attribute, const char* text) const { set(attribute, std::string_view(text)); }
  void set(std::string_view attribute, std::int64_t value) const;
  void set(std::string_view attribute, double value) const;
  void set(std::string_view attribute, H5Bool value) const;
  void set(std::string_view attribute, const std::vector<std::string>& texts) const;
  void set(std::string_view attribute, const std::vector<std::int64_t>& values) const;
  void set_reference(std::string_view attribute, const Hdf5& target) const;  // target: in the same file
  void copy_attributes(const Hdf5& source) const;  // all of them; object references are left out: they do not survive a change of file

  // Reading a dataset; a row is one entry along the first axis. Objects kept open keep their chunk cache: hold the handle while streaming.
  H5Kind kind() const;
  size_t item_bytes() const;
  Shape shape() const;
  bool is_null() const;                                    // a dataset without a dataspace (anndata's None)
  std::uint64_t rows() const;                              // 1 for a scalar
  std::optional<std::uint64_t> contiguous_offset() const;  // where the bytes lie in the file, when they lie in one piece
  template <H5Value T>
  std::vector<T> read() const {
    return read_rows<T>(0, rows());
  }
  template <H5Value T>
  std::vector<T> read_rows(std::uint64_t begin, std::uint64_t end) const {
    std::vector<T> out(items_in(begin, end));
    read_rows<T>(begin, end, std::span<T>(out));
    return out;
  }
  template <H5Value T>
  void read_rows(std::uint64_t begin, std::uint64_t end, std::span<T> out) const {
    read_items(item<T>(), begin, end, out.data(), out.size());
  }
  std::vector<std::string> read_strings() const;
  std::vector<std::string> read_strings(std::uint64_t begin, std::uint64_t end) const;

  // Writing datasets; an empty shape with one value writes a scalar. An object of that name must not exist.
  template <H5Value T>
  Hdf5 write(std::string_view path, std::span<const T> values, const Shape& shape, const H5Storage& storage = {}) const {
    Hdf5 dataset = allocate<T>(path, shape, storage);
    dataset.write_rows<T>(0, values);
    return dataset;
  }
  template <H5Value T>
  Hdf5 write(std::string_view path, const std::vector<T>& values, const H5Storage& storage = {}) const {
    return write<T>(path, std::span<const T>(values), Shape{values.size()}, storage);
  }
  template <H5Value T>
  Hdf5 write_scalar(std::string_view path, T value) const {
    return write<T>(path, std::span<const T>(&value, 1), Shape{});
  }
  Hdf5 write_strings(std::string_view path, std::span<const std::string> values,
                     const H5Storage& storage = {}) const;                 // variable-length UTF-8
  Hdf5 write_string(std::string_view path, std::string_view value) const;  // a scalar
  template <H5Value T>
  Hdf5 allocate(std::string_view path, const Shape& shape, const H5Storage& storage = {}) const {  // to be filled by rows
    return allocate_items(item<T>(), path, shape, storage);
  }
  Hdf5 allocate_like(const Hdf5& source, std::string_view path,
                     std::uint64_t rows) const;  // same type, row shape and filters, no attributes
  template <H5Value T>
  void write_rows(std::uint64_t begin, std::span<const T> values) const {
    write_items(item<T>(), begin, values.data(), values.size());
  }
  template <H5Value T>
  void append_rows(std::span<const T> values) const {
    append_items(item<T>(), values.data(), values.size());
  }  // needs H5Storage::grows
  void append_strings(std::span<const std::string> values) const;
  // Rows of a dataset of the same type, strings included: the ranges of source, ascending, end to end from row `begin` on.
  void copy_rows(const Hdf5& source, std::span<const H5Range> ranges, std::uint64_t begin) const;

  // DataError when the file was written to since it was opened for reading: what was read may be half old, half new.
  void require_unchanged() const;

 private:
  struct File;
  struct Remote;
  Hdf5(std::shared_ptr<File> file, std::shared_ptr<Remote> remote, std::string path);
  static Hdf5 from_file(std::shared_ptr<File> file);
  template <class R, class... A>
  R ask(h5::Verb verb, const A&... arguments) const;
  template <class... A>
  Hdf5 ask_object(h5::Verb verb, std::string_view path, const A&... arguments) const;
  template <class T>
  static constexpr H5Item item() {
    return h5_item<T>();
  }
  std::string join(std::string_view path) const;
  H5Facts facts() const;
  void require_plausible(const H5Facts& facts) const;
  std::uint64_t items_in(std::uint64_t begin, std::uint64_t end) const;  // DataError when it has fewer rows
  void read_items(H5Item item, std::uint64_t begin, std::uint64_t end, void* out, size_t room) const;
  bool read_here(H5Item item, H5Range rows, std::byte* out) const;  // false: of a kind that only the library reads
  void read_piece(H5Item item, H5Range rows, std::byte* out) const;
  bool read_chunks(H5Item item, H5Range rows, std::byte* out) const;
  Hdf5 allocate_items(H5Item item, std::string_view path, const Shape& shape, const H5Storage& storage) const;
  void write_items(H5Item item, std::uint64_t begin, const void* values, size_t count) const;
  void append_items(H5Item item, const void* values, size_t count) const;

  std::shared_ptr<File> file_;
  std::shared_ptr<Remote> remote_;
  std::string path_;
};

}  // namespace lc
