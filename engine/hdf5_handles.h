// Inside of engine/hdf5 only: HDF5's handles as C++ values. Everybody else includes engine/hdf5.h.
#pragma once
#include <fmt/format.h>
#include <hdf5.h>

#include <utility>

#include "engine/errors.h"
#include "engine/hdf5.h"

namespace lc {

struct Hdf5::File {
  File(std::string path_, hid_t id_) : path(std::move(path_)), id(id_) {}
  ~File();
  std::string path;
  hid_t id;
};

struct Hdf5::Handle {
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

void quiet();          // HDF5 prints nothing; call before the first call of a thread
void register_lzf();
std::string reason();  // why the last call failed
[[noreturn]] void cannot_read(const Hdf5& object, std::string_view what);
[[noreturn]] void cannot_write(const Hdf5& object, std::string_view what);
hid_t text_type();            // variable-length UTF-8
hid_t bool_type();            // enum FALSE, TRUE over int8
hid_t link_creation();        // groups in between are made
Id cache_for(hid_t dataset);  // access properties with room for its chunks; negative: the default does

}  // namespace h5
}  // namespace lc
