#include "engine/nccl/library.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <cstdlib>

namespace lc {
namespace {

constexpr int kOldest = 21403;  // 2.14.3: the first whose calls need not block

NcclLibrary open() {
  NcclLibrary l;
  // Sums over a ring are taken in one order, whatever their size; those inside the switches (NVLS) promise none. A user's choice stands.
  ::setenv("NCCL_ALGO", "Ring", 0);
  void* const library = ::dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    l.why_not = "libnccl.so.2 is not on this machine; install NCCL (libnccl2), or add its folder to LD_LIBRARY_PATH";
    return l;
  }
  const auto find = [library]<class F>(F*& f, const char* name) { return (f = reinterpret_cast<F*>(::dlsym(library, name))) != nullptr; };
  decltype(&ncclGetVersion) get_version = nullptr;
  int version = 0;
  if (find(get_version, "ncclGetVersion")) get_version(&version);
  const bool all = find(l.unique_id, "ncclGetUniqueId") && find(l.init, "ncclCommInitRankConfig") && find(l.finalize, "ncclCommFinalize") &&
                   find(l.destroy, "ncclCommDestroy") && find(l.abort, "ncclCommAbort") && find(l.async_error, "ncclCommGetAsyncError") &&
                   find(l.error_string, "ncclGetErrorString") && find(l.last_error, "ncclGetLastError") &&
                   find(l.all_reduce, "ncclAllReduce") && find(l.all_gather, "ncclAllGather") && find(l.broadcast, "ncclBroadcast") &&
                   find(l.group_start, "ncclGroupStart") && find(l.group_end, "ncclGroupEnd");
  if (!all || version < kOldest)
    l.why_not = fmt::format("libnccl.so.2 is of version {}, wanted {} or later; install a newer NCCL", version, kOldest);
  return l;
}

}  // namespace

const NcclLibrary& nccl_library() {
  static const NcclLibrary found = open();
  return found;
}

}  // namespace lc
