// The filter lzf, which h5py has and HDF5 has not (filter 32000 of HDF5's registry, LZF of Marc Lehmann), by liblzf. No filter is ever
// loaded from a plugin.
#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "engine/hdf5/handles.h"
extern "C" {
#include <liblzf/lzf.h>
}

namespace lc {
namespace {

constexpr H5Z_filter_t kLzf = 32000;
constexpr size_t kLargestOutput = size_t{1} << 31;  // of a chunk; HDF5 has none above 4 GiB

// chunk: bytes of a chunk before compression, where the writer says so. The room there is comes first: HDF5 1.10 clears as much as the room
// this gives back when it copies texts, but has only set aside what it asked for.
size_t expand(size_t bytes, size_t chunk, size_t* room, void** data) {
  for (size_t size = std::max(*room, bytes); size > 0 && size <= kLargestOutput; size = size < chunk ? chunk : 2 * size) {
    void* const out = std::malloc(size);
    if (!out) return 0;
    const unsigned got = lzf_decompress(*data, static_cast<unsigned>(bytes), out, static_cast<unsigned>(size));
    if (got > 0) {
      std::free(*data);
      *data = out, *room = size;
      return got;
    }
    const bool too_small = errno == E2BIG;
    std::free(out);
    if (!too_small) return 0;
  }
  return 0;
}

size_t compress(size_t bytes, size_t* room, void** data) {  // 0: it does not become smaller, and HDF5 keeps it as it is
  void* const out = std::malloc(bytes);
  if (!out) return 0;
  const unsigned got = bytes > 1 ? lzf_compress(*data, static_cast<unsigned>(bytes), out, static_cast<unsigned>(bytes - 1)) : 0;
  if (got == 0) {
    std::free(out);
    return 0;
  }
  std::free(*data);
  *data = out, *room = bytes;
  return got;
}

size_t filter(unsigned flags, size_t count, const unsigned cd[], size_t bytes, size_t* room, void** data) {
  return flags & H5Z_FLAG_REVERSE ? expand(bytes, count > 2 ? cd[2] : 0, room, data) : compress(bytes, room, data);
}

}  // namespace

void h5::register_lzf() {
  const H5Z_class2_t lzf = {H5Z_CLASS_T_VERS, kLzf, 1, 1, "lzf", nullptr, nullptr, filter};
  H5Zregister(&lzf);
  H5PLset_loading_state(0);
}

}  // namespace lc
