// Tensors in a file, as Hugging Face's safetensors lays them out: 8 bytes header length, JSON header, data without gaps.
// The reader trusts no number of the file and reads with pread, so a file that shrinks under it is an error and no signal.
#pragma once
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/input_file.h"
#include "engine/stored_tensor.h"

namespace lc {

using StoredMetadata = std::map<std::string, std::string>;

// All errors are ModelError (4) naming file:tensor, what was wanted and what was found.
class SafetensorsReader {
 public:
  explicit SafetensorsReader(std::filesystem::path file);  // reads and checks the header

  const std::filesystem::path& path() const { return file_.path(); }
  const std::vector<StoredTensor>& tensors() const { return tensors_; }  // sorted by name; `begin` counts from data_begin()
  std::uint64_t data_begin() const { return data_begin_; }
  const StoredMetadata& metadata() const { return metadata_; }
  const StoredTensor* find(std::string_view name) const;  // nullptr where there is none
  const StoredTensor& at(std::string_view name) const;

  void read(std::string_view name, std::span<float> out) const;  // F32, F16 or BF16; out.size() == elements
  void read_raw(std::string_view name, std::span<std::byte> out) const;
  template <class T>
  std::vector<T> values(std::string_view name) const {  // T's own type only
    std::vector<T> all(of_type(name, stored_type_of<T>).elements());
    read_raw(name, std::as_writable_bytes(std::span(all)));
    return all;
  }

 private:
  const StoredTensor& of_type(std::string_view name, StoredType wanted) const;
  void read_at(const StoredTensor& tensor, std::uint64_t offset, std::span<std::byte> out) const;

  InputFile file_;
  std::uint64_t data_begin_ = 0;
  std::vector<StoredTensor> tensors_;
  StoredMetadata metadata_;
};

struct TensorToStore {
  std::string name;
  StoredType type = StoredType::f32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> data;
};

// Atomic and byte for byte what the reference implementation writes. Two tensors of one name or data of another size: ShapeError.
void write_safetensors(const std::filesystem::path& path, std::vector<TensorToStore> tensors,
                       const StoredMetadata& metadata = {{"format", "pt"}});

}  // namespace lc
