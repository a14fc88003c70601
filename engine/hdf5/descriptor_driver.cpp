// A file driver of HDF5 that reads and writes a descriptor it was given and never opens anything: links to other files and data in other
// files cannot be followed, whatever the file says.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "engine/hdf5/handles.h"
#include "engine/hdf5/progress.h"

namespace lc {
namespace {

constexpr haddr_t kLargestAddress = (haddr_t{1} << 62) - 1;

struct Given {  // what access properties carry
  int descriptor;
  const char* path;  // of the file, for errors
};

struct Driven {  // H5FD_t comes first: HDF5 hands it around
  H5FD_t common;
  int descriptor;
  const char* path;
  haddr_t end_allocated, end_of_file;
  bool writable;
};

Driven& driven(H5FD_t* file) { return *reinterpret_cast<Driven*>(file); }
const Driven& driven(const H5FD_t* file) { return *reinterpret_cast<const Driven*>(file); }

hid_t driver();

H5FD_t* open(const char* name, unsigned flags, hid_t access, haddr_t) {
  const auto* given = static_cast<const Given*>(H5Pget_driver_info(access));
  if (!given || h5::name_of(given->descriptor) != name) return nullptr;  // the name in a link of the file
  const off_t end = lseek(given->descriptor, 0, SEEK_END);
  auto* file = static_cast<Driven*>(std::calloc(1, sizeof(Driven)));
  if (end < 0 || !file) {
    std::free(file);
    return nullptr;
  }
  file->descriptor = given->descriptor, file->path = given->path, file->writable = (flags & H5F_ACC_RDWR) != 0;
  file->end_of_file = static_cast<haddr_t>(end);
  if ((flags & H5F_ACC_TRUNC) && ftruncate(file->descriptor, 0) == 0) file->end_of_file = 0;
  return &file->common;
}

herr_t close(H5FD_t* file) {
  std::free(file);
  return 0;
}

int compare(const H5FD_t* a, const H5FD_t* b) { return driven(a).descriptor - driven(b).descriptor; }

herr_t query(const H5FD_t*, unsigned long* flags) {
  if (flags) *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE | H5FD_FEAT_AGGREGATE_SMALLDATA;
  return 0;
}

haddr_t end_allocated(const H5FD_t* file, H5FD_mem_t) { return driven(file).end_allocated; }
herr_t set_end_allocated(H5FD_t* file, H5FD_mem_t, haddr_t address) {
  driven(file).end_allocated = address;
  return 0;
}
haddr_t end_of_file(const H5FD_t* file, H5FD_mem_t) { return driven(file).end_of_file; }

herr_t failed(const H5FD_t* file, h5::Fault::What what) {
  const std::string reason = std::strerror(errno);
  h5::note({what, driven(file).path, reason});
  H5Epush2(H5E_DEFAULT, __FILE__, "driver", __LINE__, H5E_ERR_CLS, H5E_IO, H5E_READERROR, "error message = '%s'", reason.c_str());
  return -1;
}

herr_t read(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t address, size_t size, void* buffer) {
  auto* to = static_cast<char*>(buffer);
  if (address > kLargestAddress || size > kLargestAddress - address) return -1;
  while (size > 0) {
    const ssize_t got = pread(driven(file).descriptor, to, size, static_cast<off_t>(address));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return failed(file, h5::Fault::What::read);
    if (got == 0) {  // behind the end of the file, as HDF5's own driver does
      std::memset(to, 0, size);
      return 0;
    }
    to += got, address += static_cast<haddr_t>(got), size -= static_cast<size_t>(got);
    if (!h5::progress(static_cast<std::uint64_t>(got))) return -1;
  }
  return 0;
}

herr_t write(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t address, size_t size, const void* buffer) {
  const auto* from = static_cast<const char*>(buffer);
  if (address > kLargestAddress || size > kLargestAddress - address) return -1;
  while (size > 0) {
    const ssize_t put = pwrite(driven(file).descriptor, from, size, static_cast<off_t>(address));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return failed(file, h5::Fault::What::write);
    from += put, address += static_cast<haddr_t>(put), size -= static_cast<size_t>(put);
    if (!h5::progress(static_cast<std::uint64_t>(put))) return -1;
  }
  driven(file).end_of_file = std::max(driven(file).end_of_file, address);
  return 0;
}

herr_t truncate(H5FD_t* file, hid_t, hbool_t) {
  Driven& f = driven(file);
  if (!f.writable || f.end_allocated == f.end_of_file) return 0;
  while (ftruncate(f.descriptor, static_cast<off_t>(f.end_allocated)) != 0)
    if (errno != EINTR) return failed(file, h5::Fault::What::write);
  f.end_of_file = f.end_allocated;
  return 0;
}

hid_t driver() {
  static const hid_t registered = [] {
    H5FD_class_t made{};
    made.name = "langcell_descriptor", made.maxaddr = kLargestAddress, made.fc_degree = H5F_CLOSE_STRONG, made.fapl_size = sizeof(Given);
    made.open = open, made.close = close, made.cmp = compare, made.query = query;
    made.get_eoa = end_allocated, made.set_eoa = set_end_allocated, made.get_eof = end_of_file;
    made.read = read, made.write = write, made.truncate = truncate;
    const H5FD_mem_t map[] = H5FD_FLMAP_DICHOTOMY;
    std::copy(std::begin(map), std::end(map), made.fl_map);
    return H5FDregister(&made);
  }();
  return registered;
}

}  // namespace

std::string h5::name_of(int descriptor) {
  static const auto secret = static_cast<unsigned long>(reinterpret_cast<std::uintptr_t>(&driver)) ^ static_cast<unsigned long>(getpid());
  return fmt::format("langcell-{:x}-{}", secret, descriptor);
}

h5::Id h5::access_to(int descriptor, const std::string& path) {
  Id access(H5Pcreate(H5P_FILE_ACCESS));
  const Given given{descriptor, path.c_str()};
  H5Pset_driver(access, driver(), &given);
  H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
  return access;
}

}  // namespace lc
