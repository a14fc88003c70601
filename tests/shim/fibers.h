// The fibers of one block and what the shim remembers of it; shared by the shim's own sources.
#pragma once
#include <array>
#include <boost/context/detail/fcontext.hpp>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "tests/shim/hopper.h"
#include "tests/shim/shim.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define ASAN(...) __VA_ARGS__
#else
#define ASAN(...)
#endif
// ThreadSanitizer, for plain accesses: kernels are instrumented, the shim is not but says which barrier orders what, so every CUDA thread
// is a thread of its own. Tokens are addresses never used twice; each block gets shared memory nobody used before.
#if defined(SHIM_TSAN)
#include <sanitizer/tsan_interface.h>
#define TSAN(...) __VA_ARGS__
#else
#define TSAN(...)
#endif

namespace shim {

namespace context = boost::context::detail;

struct Copy {  // a cp.async nobody waited for yet
  void* to;
  const void* from;
  std::size_t bytes;
};

struct Running {  // a wgmma nobody waited for yet; several in a row on one accumulator are one
  float* d;
  std::vector<float> result;
  std::vector<std::pair<const std::uint32_t*, std::array<std::uint32_t, 4>>> operands;  // registers that must not change
  std::vector<std::pair<int, int>> cells;  // (group, cell) read by the warp, kept by its first lane
  int group;
};

struct Thread {
  context::fcontext_t context = nullptr;
  uint3 index{};
  int lane = 0, warp = 0;
  char* stack = nullptr;
  std::size_t stagger = 0;
  std::vector<Copy> copies;
  std::vector<std::size_t> groups;  // copies.size() at each commit
  std::vector<Running> products;
  int product_groups = 0;  // committed so far
  bool fenced = false;
  ASAN(void* fake = nullptr; const void* bottom = nullptr; std::size_t size = 0;)
  TSAN(void* tsan = nullptr;)
};

struct Warp {
  std::uint32_t all = 0, alive = 0, runnable = 0, arrived = 0;  // lanes, a bit each
  WarpOp op{};
  Site site;
  unsigned phase = 0;
  Thread* threads[32] = {};
  Slot slots[2];
};

// What cp.async and ldmatrix did to 16 bytes of shared memory. Two warps at one cell, one of them writing, with no barrier in between, is
// a race whatever order the threads happened to run in.
struct Cell {
  int write_epoch = -1, read_epoch = -1;
  std::uint32_t read_warps = 0;
  int write_warp = 0;
  bool in_flight = false;
  int products = 0;  // running ones that read it
};

struct BoxCopy {
  char* to;
  TensorMap map;
  int column, row;
};
struct Mbarrier {
  int arrivals = 0, pending = 0;
  long long bytes = 0;  // expected and not copied yet
  unsigned phase = 0;
  std::vector<BoxCopy> copies;
  std::vector<Thread*> waiting;
  Site site;
};

struct Block {
  std::vector<Cell> cells;
  std::map<const void*, Mbarrier> mbarriers;
  int epoch = 0;  // barriers passed
  TSAN(char* token = nullptr; std::size_t stride = 0;)
  std::vector<std::unique_ptr<Thread>> threads;
  std::vector<std::unique_ptr<Warp>> warps;
  Thread host;
  Thread* current = &host;
  Warp* warp = nullptr;
  int count = 0, warp_count = 0, arrived = 0, returned = 0;
  Site site;
  Body body = nullptr;
  void* data = nullptr;
  std::string error;
  char* shared = nullptr;
  std::size_t shared_bytes = 0;

  bool holds(const void* p, std::size_t bytes) const {
    const char* c = static_cast<const char*>(p);
    return c >= shared && c + bytes <= shared + shared_bytes;
  }
  Cell& cell(const void* p) { return cells[static_cast<std::size_t>(static_cast<const char*>(p) - shared) / 16]; }
};
inline constinit thread_local Block* block = nullptr;

std::string where(Site site);  // "attention.cu:12:34"
std::string head();            // "attention_forward_kernel block (1,2,0): "
void sleep_here();             // the current thread cannot go on until somebody wakes it
void wake(const std::vector<Thread*>& threads);
char mark_behind(const void* piece, std::size_t at);  // what lies at this byte from its start, behind its end
void check_memory_behind();                           // throws when a launch wrote behind a piece of device memory

}  // namespace shim
