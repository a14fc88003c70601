// NCCL's twin. Ranks meet in a Clique, collective by collective; the last to come compares what all brought and does the work of all. Sums
// begin at another rank in each part of the values, as around a ring, so nobody can lean on the order of the ranks.
#include "tests/shim/nccl.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <vector>

namespace {

struct Call {
  std::string name;
  const void* in;
  void* out;
  std::size_t count;
  ncclDataType_t type;
  int op = 0, root = -1;
  std::string text() const {
    return name + " of " + std::to_string(count) + " values of type " + std::to_string(type) + ", operation " + std::to_string(op) +
           (root < 0 ? "" : ", root " + std::to_string(root));
  }
  bool fits(const Call& other) const {
    return name == other.name && count == other.count && type == other.type && op == other.op && root == other.root;
  }
};
using Calls = std::vector<Call>;  // of one group

std::size_t size_of(ncclDataType_t type) { return type == ncclFloat ? 4 : 8; }

struct Clique {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<int> device;  // of each rank; −1: not there yet
  std::vector<bool> aborted, finalized;
  std::vector<const Calls*> brought;
  int arrived = 0;
  long long round = 0;
  ncclResult_t error = ncclSuccess;
  std::string why;

  int ranks() const { return static_cast<int>(device.size()); }
  bool complete() const { return std::find(device.begin(), device.end(), -1) == device.end(); }
  bool broken() const { return std::find(aborted.begin(), aborted.end(), true) != aborted.end(); }
  void fail(ncclResult_t with, const std::string& text) {
    if (error == ncclSuccess) error = with, why = text;
    changed.notify_all();
  }
  void perform(int rank, const Calls& calls);
  void compare_and_do();
};

// ---- The work

template <class T>
void reduce(const std::vector<const Calls*>& of, std::size_t index) {
  const std::size_t n = of.size(), count = (*of[0])[index].count, part = (count + n - 1) / n;
  std::vector<T> sum(count);
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t k = 0; k < n; ++k) {
      const T x = static_cast<const T*>((*of[(i / part + 1 + k) % n])[index].in)[i];
      sum[i] = k == 0 ? x : (*of[0])[index].op == ncclMax ? std::max(sum[i], x) : sum[i] + x;
    }
  }
  for (const Calls* c : of) std::copy(sum.begin(), sum.end(), static_cast<T*>((*c)[index].out));
}

void work(const std::vector<const Calls*>& of, std::size_t index) {
  const Call& first = (*of[0])[index];
  const std::size_t bytes = first.count * size_of(first.type);
  if (bytes == 0) return;
  if (first.name == "ncclAllReduce")
    return first.type == ncclFloat    ? reduce<float>(of, index)
           : first.type == ncclDouble ? reduce<double>(of, index)
                                      : reduce<long long>(of, index);
  for (std::size_t r = 0; r < of.size(); ++r) {
    if (first.root >= 0 && static_cast<int>(r) != first.root) continue;
    for (const Calls* c : of)
      std::memmove(static_cast<char*>((*c)[index].out) + (first.root >= 0 ? 0 : r * bytes), (*of[r])[index].in, bytes);
  }
}

void Clique::compare_and_do() {
  const Calls& first = *brought[0];
  for (int r = 1; r < ranks() && error == ncclSuccess; ++r) {
    const Calls& other = *brought[static_cast<std::size_t>(r)];
    if (other.size() != first.size())
      fail(ncclInvalidUsage, "rank " + std::to_string(r) + " calls " + std::to_string(other.size()) + " collectives in a group, rank 0 " +
                                 std::to_string(first.size()));
    for (std::size_t i = 0; i < first.size() && error == ncclSuccess; ++i) {
      if (!first[i].fits(other[i]))
        fail(ncclInvalidUsage, "rank " + std::to_string(r) + " calls " + other[i].text() + ", rank 0 " + first[i].text());
    }
  }
  for (std::size_t i = 0; i < first.size() && error == ncclSuccess; ++i) work(brought, i);
}

// In the stream of a rank. A rank that nobody comes to waits until its communicator is aborted.
void Clique::perform(int rank, const Calls& calls) {
  std::unique_lock lock(mutex);
  const auto me = static_cast<std::size_t>(rank);
  if (error != ncclSuccess || aborted[me]) return;
  brought[me] = &calls;
  if (++arrived < ranks() || broken()) {
    changed.wait(lock, [&, mine = round] { return round != mine || aborted[me] || error != ncclSuccess; });
    return;
  }
  compare_and_do();
  arrived = 0, ++round;
  changed.notify_all();
}

// ---- Names and handles

std::mutex all;
std::map<std::string, std::shared_ptr<Clique>>& cliques() {
  static std::map<std::string, std::shared_ptr<Clique>> known;
  return known;
}
std::set<ncclComm_t>& live() {
  static std::set<ncclComm_t> communicators;
  return communicators;
}
thread_local std::string last;
thread_local int depth = 0;
struct Waiting {
  ncclComm_t comm;
  Calls calls;
};
thread_local std::vector<Waiting> group;

ncclResult_t refuse(ncclResult_t result, const std::string& why) {
  last = why;
  return result;
}

}  // namespace

struct ncclComm {
  std::shared_ptr<Clique> clique;
  int rank, device;
  std::atomic<bool> entered = false;
  std::atomic<int> calls = 0;
  std::atomic<bool> in_progress = false;  // a call that takes until somebody asks
};

namespace {

bool lives(ncclComm_t comm) {
  const std::lock_guard lock(all);
  return live().contains(comm);
}

// One thread at a time.
class Entered {
 public:
  explicit Entered(ncclComm_t comm) : comm_(comm), alone_(!comm->entered.exchange(true)) {}
  ~Entered() {
    if (alone_) comm_->entered = false;
  }
  Entered(const Entered&) = delete;
  Entered& operator=(const Entered&) = delete;
  bool alone() const { return alone_; }

 private:
  ncclComm_t comm_;
  const bool alone_;
};

// In a stream of its own a collective runs late, beside the thread's work: what it reads must not change until then.
void put_into_stream(ncclComm_t comm, Calls&& calls, cudaStream_t stream) {
  std::vector<std::string> then;
  for (const Call& c : calls) then.emplace_back(stream ? std::string(static_cast<const char*>(c.in), c.count * size_of(c.type)) : "");
  shim::ask_of_stream(stream_of(stream), [clique = comm->clique, rank = comm->rank, calls = std::move(calls), then = std::move(then)] {
    for (std::size_t i = 0; i < calls.size(); ++i) {
      if (std::memcmp(then[i].data(), calls[i].in, then[i].size()) == 0) continue;
      const std::lock_guard lock(clique->mutex);
      clique->fail(ncclInvalidUsage, "rank " + std::to_string(rank) + " changes values of " + calls[i].name + " before it is done");
    }
    clique->perform(rank, calls);
  });
}

ncclResult_t call(ncclComm_t comm, Call&& c, std::size_t out_bytes, cudaStream_t stream) {
  if (!lives(comm)) return refuse(ncclInvalidArgument, c.name + " with a communicator that is not, or no longer, there");
  const Entered entered(comm);
  if (!entered.alone()) return refuse(ncclInvalidUsage, c.name + ": two threads use a communicator at once");
  if (comm->in_progress) return refuse(ncclInvalidUsage, c.name + " while the call before is in progress");
  {
    const std::lock_guard lock(comm->clique->mutex);
    if (comm->clique->error != ncclSuccess) return comm->clique->error;
    if (!comm->clique->complete()) return refuse(ncclInvalidUsage, c.name + " before the communicator is ready");
  }
  const std::size_t bytes = c.count * size_of(c.type);
  if (bytes > 0 && (shim::device_of(c.in, bytes) != comm->device || shim::device_of(c.out, out_bytes) != comm->device))
    return refuse(ncclInvalidArgument, c.name + ": wanted memory of GPU " + std::to_string(comm->device));
  if (!shim::knows_all(stream_of(stream)))
    return refuse(ncclInvalidUsage, c.name + " in a stream that does not wait for the work before it in the thread's own");
  if (depth > 0) {
    if (stream) return refuse(ncclInvalidUsage, c.name + " of a group in another stream than the thread's own");
    const auto same = std::find_if(group.begin(), group.end(), [&](const Waiting& w) { return w.comm == comm; });
    (same == group.end() ? group.insert(same, {comm, {}}) : same)->calls.push_back(std::move(c));
    return ncclSuccess;
  }
  put_into_stream(comm, {std::move(c)}, stream);
  comm->in_progress = ++comm->calls % 2 == 0;  // both ways are walked
  return comm->in_progress ? ncclInProgress : ncclSuccess;
}

}  // namespace

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  static std::atomic<int> made = 0;
  *id = {};
  std::snprintf(id->internal, sizeof id->internal, "clique %d", ++made);
  const std::lock_guard lock(all);
  cliques()[id->internal] = std::make_shared<Clique>();
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank, ncclConfig_t* config) {
  if (config->magic != 0xcafebeef || config->blocking != 0)
    return refuse(ncclInvalidArgument, "wanted a configuration that does not block");
  const std::lock_guard lock(all);
  const auto found = cliques().find(std::string(id.internal, strnlen(id.internal, sizeof id.internal)));
  if (found == cliques().end()) return refuse(ncclInvalidArgument, "an id that nobody made");
  Clique& c = *found->second;
  const std::lock_guard inner(c.mutex);
  if (c.device.empty()) {
    const auto n = static_cast<std::size_t>(std::max(1, ranks));
    c.device.assign(n, -1), c.aborted.assign(n, false), c.finalized.assign(n, false), c.brought.assign(n, nullptr);
  }
  if (ranks != c.ranks() || rank < 0 || rank >= ranks || c.device[static_cast<std::size_t>(rank)] >= 0) {
    c.fail(ncclInvalidArgument, "rank " + std::to_string(rank) + " of " + std::to_string(ranks) + " does not fit the others");
    return refuse(c.error, c.why);
  }
  for (int r = 0; r < ranks; ++r) {
    if (c.device[static_cast<std::size_t>(r)] == shim::current_device)
      c.fail(ncclInvalidUsage, "Duplicate GPU detected : rank " + std::to_string(rank) + " and rank " + std::to_string(r) +
                                   " both on CUDA device " + std::to_string(shim::current_device));
  }
  c.device[static_cast<std::size_t>(rank)] = shim::current_device;
  *comm = new ncclComm{found->second, rank, shim::current_device};
  live().insert(*comm);
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  if (!lives(comm)) return refuse(ncclInvalidArgument, "a communicator that is not, or no longer, there");
  Clique& c = *comm->clique;
  const std::lock_guard lock(c.mutex);
  const bool leaving = c.finalized[static_cast<std::size_t>(comm->rank)];
  const bool waits = !c.complete() || (leaving && std::find(c.finalized.begin(), c.finalized.end(), false) != c.finalized.end());
  *error = c.error != ncclSuccess                       ? c.error
           : c.broken()                                 ? ncclRemoteError
           : waits || comm->in_progress.exchange(false) ? ncclInProgress
                                                        : ncclSuccess;
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  if (!lives(comm)) return refuse(ncclInvalidArgument, "ncclCommFinalize of a communicator that is not, or no longer, there");
  shim::use_stream();
  const std::lock_guard lock(comm->clique->mutex);
  comm->clique->finalized[static_cast<std::size_t>(comm->rank)] = true;
  return ncclInProgress;
}

static void remove(ncclComm_t comm) {
  {
    const std::lock_guard lock(all);
    live().erase(comm);
  }
  delete comm;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  if (!lives(comm)) return refuse(ncclInvalidArgument, "ncclCommDestroy of a communicator that is not, or no longer, there");
  remove(comm);
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  if (!lives(comm)) return refuse(ncclInvalidArgument, "ncclCommAbort of a communicator that is not, or no longer, there");
  {
    const std::lock_guard lock(comm->clique->mutex);
    comm->clique->aborted[static_cast<std::size_t>(comm->rank)] = true;
    comm->clique->changed.notify_all();
  }
  remove(comm);
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  constexpr const char* names[] = {"no error",
                                   "unhandled cuda error",
                                   "unhandled system error",
                                   "internal error",
                                   "invalid argument",
                                   "invalid usage",
                                   "remote process exited or there was a network error",
                                   "NCCL operation in progress"};
  return names[result];
}

const char* ncclGetLastError(ncclComm_t comm) {
  if (comm && lives(comm)) {
    const std::lock_guard lock(comm->clique->mutex);
    if (!comm->clique->why.empty()) last = comm->clique->why;
  }
  return last.c_str();
}

ncclResult_t ncclAllReduce(const void* in, void* out, std::size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm,
                           cudaStream_t stream) {
  return call(comm, {"ncclAllReduce", in, out, count, type, op}, count * size_of(type), stream);
}
ncclResult_t ncclAllGather(const void* in, void* out, std::size_t count_of_each, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
  const std::size_t ranks = lives(comm) ? comm->clique->device.size() : 0;
  return call(comm, {"ncclAllGather", in, out, count_of_each, type}, ranks * count_of_each * size_of(type), stream);
}
ncclResult_t ncclBroadcast(const void* in, void* out, std::size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t stream) {
  return call(comm, {"ncclBroadcast", in, out, count, type, 0, root}, count * size_of(type), stream);
}

ncclResult_t ncclGroupStart() {
  ++depth;
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
  if (depth == 0) return refuse(ncclInvalidUsage, "ncclGroupEnd without ncclGroupStart");
  if (--depth > 0) return ncclSuccess;
  for (Waiting& w : std::exchange(group, {})) put_into_stream(w.comm, std::move(w.calls), nullptr);
  return ncclSuccess;
}
