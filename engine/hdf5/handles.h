// Inside of engine/hdf5 only: HDF5's handles as C++ values. Everybody else includes engine/hdf5/object.h.
#pragma once
#include <fmt/format.h>
#include <hdf5.h>

#include <utility>

#include "engine/errors.h"
#include "engine/hdf5/object.h"

namespace lc {

struct H5Object::File {
  File(std::string path_, int descriptor_) : path(std::move(path_)), descriptor(descriptor_) {}
  ~File();
  std::string path;
  int descriptor;
  hid_t id = -1;
};

struct H5Object::Handle {
  explicit Handle(hid_t id_) : id(id_) {}
  ~Handle();
  hid_t id;
};

namespace h5 {

class Id {  // any HDF5 handle with an owner
 public:
  explicit Id(hid_t id = -1) : id_(id) {}
  Id(Id&& other) noexcept : id_(std::exchange(other.id_, -1)) {}
  Id& operator=(Id&& other) noexcept { return std::swap(id_, other.id_), *this; }
  ~Id() {
    if (id_ >= 0) H5Idec_ref(id_);
  }
  operator hid_t() const { return id_; }

 private:
  hid_t id_;
};

class StringBuffer {  // room for `count` strings of a fixed- or variable-length file type, to be read into
 public:
  StringBuffer(hid_t file_type, hid_t space, size_t count);
  ~StringBuffer();
  StringBuffer(const StringBuffer&) = delete;
  StringBuffer& operator=(const StringBuffer&) = delete;
  hid_t type() const { return type_; }
  void* data() { return bytes_.data(); }
  std::vector<std::string> take() const;

 private:
  Id type_;
  hid_t space_;
  size_t count_, width_;
  bool variable_, padded_;
  std::vector<char> bytes_;
};

void quiet();  // HDF5 prints nothing; call before the first call of a thread
void register_lzf();
std::string reason();  // why the last call failed
[[noreturn]] void cannot_read(const H5Object& object, std::string_view what);
[[noreturn]] void cannot_write(const H5Object& object, std::string_view what);
Id access_to(int descriptor, const std::string& path);  // file access properties of an open file; path outlives it, for errors
std::string name_of(int descriptor);                    // the one name under which HDF5 can open it
hid_t text_type();                                      // variable-length UTF-8
hid_t bool_type();                                      // enum FALSE, TRUE over int8
hid_t link_creation();                                  // groups in between are made
// File and memory dataspaces of rows [begin, begin + count); a scalar is one row.
std::pair<Id, Id> spaces_of_rows(hid_t dataset, const H5Shape& shape, std::uint64_t begin, std::uint64_t count);
Id cache_for(hid_t dataset);                // access properties with room for its chunks; negative: the default does
std::string kept_elsewhere(hid_t dataset);  // how its data lie in other files, as a clause; empty when they do not

}  // namespace h5
}  // namespace lc
