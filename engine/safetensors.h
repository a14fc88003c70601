// Tensors in a file, as Hugging Face's safetensors lays them out: 8 bytes header length, JSON header, data without gaps.
// The reader trusts no number of the file and reads with pread, so a file that shrinks under it is an error and no signal.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/numeric.h"

namespace lc {

// In the order of the reference implementation, which sorts tensors by it, descending: large alignments first.
enum class StoredType : std::uint8_t { boolean, u8, i8, i16, u16, f16, bf16, i32, u32, f32, f64, i64, u64 };
size_t size_of(StoredType type);
const char* name_of(StoredType type);  // as in the file: "F32"

template <class T> inline constexpr StoredType stored_type_of = StoredType::f32;
template <> inline constexpr StoredType stored_type_of<bf16> = StoredType::bf16;
template <> inline constexpr StoredType stored_type_of<double> = StoredType::f64;
template <> inline constexpr StoredType stored_type_of<std::uint8_t> = StoredType::u8;
template <> inline constexpr StoredType stored_type_of<std::int32_t> = StoredType::i32;
template <> inline constexpr StoredType stored_type_of<std::int64_t> = StoredType::i64;
template <> inline constexpr StoredType stored_type_of<std::uint64_t> = StoredType::u64;

struct StoredTensor {
  std::string name;
  StoredType type = StoredType::f32;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0, bytes = 0;  // within the data part
  size_t elements() const { return static_cast<size_t>(bytes) / size_of(type); }
};

using StoredMetadata = std::map<std::string, std::string>;

// All errors are ModelError (4) naming file:tensor, what was wanted and what was found.
class SafetensorsReader {
 public:
  explicit SafetensorsReader(std::filesystem::path path);  // reads and checks the header
  ~SafetensorsReader();
  SafetensorsReader(const SafetensorsReader&) = delete;
  SafetensorsReader& operator=(const SafetensorsReader&) = delete;

  const std::filesystem::path& path() const { return path_; }
  const std::vector<StoredTensor>& tensors() const { return tensors_; }  // sorted by name
  const StoredMetadata& metadata() const { return metadata_; }
  const StoredTensor* find(std::string_view name) const;  // nullptr where there is none
  const StoredTensor& at(std::string_view name) const;

  void read(std::string_view name, std::span<float> out) const;  // F32, F16 or BF16; out.size() == elements
  void read_raw(std::string_view name, std::span<std::byte> out) const;
  template <class T> std::vector<T> values(std::string_view name) const {  // T's own type only
    std::vector<T> all(of_type(name, stored_type_of<T>).elements());
    read_raw(name, std::as_writable_bytes(std::span(all)));
    return all;
  }

 private:
  const StoredTensor& of_type(std::string_view name, StoredType wanted) const;
  void read_at(const StoredTensor& tensor, std::uint64_t offset, std::span<std::byte> out) const;

  std::filesystem::path path_;
  int descriptor_ = -1;
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
void write_safetensors(const std::filesystem::path& path, std::vector<TensorToStore> tensors, const StoredMetadata& metadata = {{"format", "pt"}});

}  // namespace lc
