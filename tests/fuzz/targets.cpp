#include "tests/fuzz/targets.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <stdexcept>
#include <string>

#include "engine/errors.h"
#include "engine/hdf5/pieces.h"
#include "engine/hdf5/wire.h"
#include "engine/safetensors.h"
#include "models/langcell/data/gene_vocabulary.h"
#include "models/langcell/data/ontology.h"
#include "models/langcell/data/texts.h"
#include "models/langcell/data/word_piece.h"
#include "models/langcell/folder_config.h"
#include "models/langcell/pretrained/geneformer_dictionaries.h"
#include "models/langcell/pretrained/tensor_files.h"
#include "tools/anndata/matrix_market.h"

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

void matrix_market(std::span<const std::byte> bytes) {
  const FileOfBytes file(bytes);
  refusals_are_right([&] {
    const auto matrix = read_matrix_market(file.path());
    for (std::uint64_t row = 0; row < matrix->cells(); row += 64) (void)matrix->read_rows(row, std::min(row + 64, matrix->cells()));
  });
}
void ontology(std::span<const std::byte> bytes) {
  const FileOfBytes file(bytes);
  refusals_are_right([&] { (void)Ontology::read(file.path()); });
}
void texts(std::span<const std::byte> bytes) {
  refusals_are_right([&] { (void)Texts::parse({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, "texts.json").all(); });
}
void gene_vocabulary(std::span<const std::byte> bytes) {
  const FileOfBytes file(bytes);
  refusals_are_right([&] { (void)GeneVocabulary::read(file.path()); });
}
void word_piece(std::span<const std::byte> bytes) {  // a vocabulary, an empty line, a text
  const std::string_view all(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const size_t end = std::min(all.find("\n\n"), all.size());
  const FileOfBytes file(bytes.first(end));
  refusals_are_right([&] { (void)WordPiece::read(file.path()).encode(all.substr(end), 512); });
}

// What this process believes of the one that reads HDF5 files.
void reader_answers(std::span<const std::byte> bytes) {
  refusals_are_right([&] {
    h5::Wire wire(std::vector<std::byte>(bytes.begin(), bytes.end()));
    (void)wire.get<H5Facts>(), (void)wire.get<std::vector<std::string>>(), (void)wire.get<std::vector<H5Piece>>();
    (void)wire.get<std::optional<std::uint64_t>>(), (void)wire.get<H5Storage>(), (void)wire.get<std::string>();
  });
}

// Byte 0: which filters, in which order; byte 1: bytes of an item; byte 2: the chunk's size; the rest as it lies in the file.
void chunks(std::span<const std::byte> bytes) {
  if (bytes.size() < 3) return;
  const auto filters = static_cast<unsigned>(bytes[0]), width = static_cast<unsigned>(bytes[1]);
  H5Layout layout;
  layout.item = H5Item::f32;
  for (unsigned i = 0; i < 3; ++i) {
    const std::int32_t known[] = {0, kH5Deflate, kH5Shuffle, kH5Lzf};
    if (const std::int32_t id = known[filters >> (2 * i) & 3]; id != 0) layout.filters.push_back({id, {width}});
  }
  refusals_are_right([&] { (void)h5::unfiltered(bytes.subspan(3), layout, filters >> 6, 16 * static_cast<size_t>(bytes[2]), "a chunk"); });
}

constexpr std::array<FuzzTarget, 11> kTargets{{{"torch_file", torch_file},
                                               {"safetensors", safetensors},
                                               {"geneformer_dictionaries", geneformer_dictionaries},
                                               {"tower_config", tower_config},
                                               {"matrix_market", matrix_market},
                                               {"ontology", ontology},
                                               {"texts", texts},
                                               {"gene_vocabulary", gene_vocabulary},
                                               {"word_piece", word_piece},
                                               {"reader_answers", reader_answers},
                                               {"chunks", chunks}}};

}  // namespace

std::span<const FuzzTarget> fuzz_targets() { return kTargets; }

}  // namespace lc::test
