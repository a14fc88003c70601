#include "tests/fuzz/targets.h"

#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <stdexcept>
#include <string>

#include "engine/errors.h"
#include "engine/safetensors.h"
#include "models/langcell/folder_config.h"
#include "models/langcell/pretrained/geneformer_dictionaries.h"
#include "models/langcell/pretrained/tensor_files.h"

namespace lc::test {
namespace {

// A file that exists only in memory, under a name that can be opened.
class FileOfBytes {
 public:
  explicit FileOfBytes(std::span<const std::byte> bytes) : descriptor_(::memfd_create("fuzz", MFD_CLOEXEC)) {
    if (descriptor_ < 0 || ::write(descriptor_, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()))
      throw std::runtime_error("memfd");
  }
  ~FileOfBytes() { ::close(descriptor_); }
  FileOfBytes(const FileOfBytes&) = delete;
  FileOfBytes& operator=(const FileOfBytes&) = delete;
  std::filesystem::path path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

 private:
  int descriptor_;
};

// Every weight is read: a place outside the file must not pass the header's checks.
void read_all(const TensorFiles& files) {
  for (std::size_t i = 0; i < files.tensors().size(); ++i) {
    const StoredTensor& t = files.tensors()[i];
    if (!is_weight(t.type)) continue;
    std::vector<float> values(t.elements());
    files.read(i, values);
  }
}

template <class F>
void refusals_are_right(const F& read) {
  try {
    read();
  } catch (const DataError&) {
  } catch (const ModelError&) {}
}

void tensor_file(std::span<const std::byte> bytes) {
  const FileOfBytes file(bytes);
  refusals_are_right([&] { read_all(TensorFiles::of_file(file.path())); });
}
void torch_file(std::span<const std::byte> bytes) {
  if (bytes.size() >= 2 && bytes[0] == std::byte{'P'} && bytes[1] == std::byte{'K'}) tensor_file(bytes);
}
void safetensors(std::span<const std::byte> bytes) {
  const FileOfBytes file(bytes);
  refusals_are_right([&] {
    const SafetensorsReader reader(file.path());
    for (const StoredTensor& t : reader.tensors()) {
      std::vector<std::byte> values(t.bytes);
      reader.read_raw(t.name, values);
    }
  });
}
void geneformer_dictionaries(std::span<const std::byte> bytes) {
  const FileOfBytes file(bytes);
  refusals_are_right([&] { read_geneformer_dictionaries(file.path(), file.path()); });
}
void tower_config(std::span<const std::byte> bytes) {
  const FileOfBytes file(bytes);
  refusals_are_right([&] { read_bert_config(file.path()); });
}

constexpr std::array<FuzzTarget, 4> kTargets{{{"torch_file", torch_file},
                                              {"safetensors", safetensors},
                                              {"geneformer_dictionaries", geneformer_dictionaries},
                                              {"tower_config", tower_config}}};

}  // namespace

std::span<const FuzzTarget> fuzz_targets() { return kTargets; }

}  // namespace lc::test
