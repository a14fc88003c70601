// What stands behind the twins of CUDA's headers: every CUDA thread is a fiber, a block's fibers take turns on one OS thread, blocks run
// one after another. Shared and device memory start as NaN; mistakes that a GPU may forgive are errors here, named by kernel and line.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <source_location>
#include <string>

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
inline constinit thread_local uint3 threadIdx{}, blockIdx{};
inline constinit thread_local dim3 blockDim{}, gridDim{};

namespace shim {

using Site = std::source_location;
enum class Order { forward, reverse };  // threads and blocks first to last, or last to first
enum class WarpOp { syncwarp, shuffle, ballot, mma, ldmatrix, wgmma };

struct Stats {  // since somebody last cleared it; ldmatrix_extra counts shared-memory wavefronts beyond one per 8x8 matrix (bank conflicts)
  long long blocks, switches, mma, ldmatrix, ldmatrix_extra, barriers;
};
inline constinit thread_local Stats stats{};
inline Order order = Order::forward;
inline int compute_major = 8;          // of the device; 9: Hopper's path can be chosen
inline int shared_limit = 163 * 1024;  // opt-in dynamic shared memory of one block: 163 KiB on sm_80, 227 on sm_90
inline int device_count = 1;
inline constinit thread_local int current_device = 0;
inline thread_local const char* kernel_name = "kernel";
inline constinit thread_local int lane_index = 0;

// What the lanes of a warp hand each other: every lane's words in, every lane's words out.
struct Slot {
  alignas(32) std::uint32_t in[32][12];
  alignas(32) std::uint32_t out[32][4];
};

// Every lane of the warp deposits its words; the last to arrive runs `all`. Two slots a warp are enough, because nobody can enter the
// collective after next before everybody has left this one.
Slot& collective(WarpOp op, const void* in, std::size_t bytes, void (*all)(Slot&), Site site);
void block_barrier(Site site);
inline int lane() { return lane_index; }
[[noreturn]] void fail(std::string&& what);  // ends the launch: throws std::runtime_error from it

// A thread's own stream does everything at once, but for collectives, which wait for other ranks: they are done when it is used again.
// Any other stream takes nothing but collectives, as late as can be: when one that waits for it is used.
struct Asked {
  std::function<void()> work;
  std::shared_ptr<std::atomic<bool>> done;
};
struct Stream {
  std::deque<Asked> asked;
  long long knows = 0;  // of the thread's own stream: how much of its work this one has waited for
};
using StreamPtr = std::shared_ptr<Stream>;
struct Event {
  std::shared_ptr<std::atomic<bool>> before;  // null: all before it is done
  StreamPtr of;
  long long knows = 0;
};
const StreamPtr& own_stream();
void ask_of_stream(const StreamPtr& stream, std::function<void()>&& work);
bool knows_all(const StreamPtr& stream);  // nothing that the thread's own stream was asked for can come after what this one does next
void record(Event& event, const StreamPtr& stream);
void let_wait(const StreamPtr& stream, const Event& event);
void run_stream();
inline constinit thread_local bool stream_waits = false;
inline constinit thread_local long long own_work = 0;
inline void use_stream() {
  ++own_work;
  if (stream_waits) run_stream();
}

int device_of(const void* memory, std::size_t bytes);  // which owns all of it; −1: none does

void* dynamic_shared();
void copy_async(void* to, const void* from, std::size_t bytes_from);  // 16 bytes, rest zero; NaN until the wait
void copy_async_commit();
void copy_async_wait(int may_stay_open);
void ballot_all(Slot&);
void mma_all(Slot&);
void ldmatrix_all(Slot&);
void ldmatrix_trans_all(Slot&);

using Body = void (*)(void*);
struct Launch {
  dim3 grid, block;
  std::size_t shared = 0;
  const void* kernel = nullptr;
  Body body = nullptr;
  void* data = nullptr;
};
int run_grid(const Launch& launch);  // 0, or the error CUDA would give
int allow_shared(const void* kernel, int bytes);

template <class T>
T bits_to(const std::uint32_t* w) {
  T v;
  std::memcpy(&v, w, sizeof v);
  return v;
}
template <class T>
T shuffle(T v, int from, Site site) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  return bits_to<T>(collective(WarpOp::shuffle, &v, sizeof v, nullptr, site).in[from & 31]);
}
inline void want_full_mask(unsigned mask) {
  if (mask != 0xffffffffu) fail("wanted the full warp mask");
}

}  // namespace shim
