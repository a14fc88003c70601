// The scheduler: fibers, barriers, warp collectives. A fiber lives on for the next block, so no stack is set up twice and sanitizers see
// frames return. After an error the fibers in the middle of a kernel are abandoned and made afresh.
#include "tests/shim/fibers.h"

#include <pthread.h>
#include <sys/mman.h>

#include <bit>
#include <cstdlib>
#include <stdexcept>

#include "tests/shim/run_block.h"

namespace shim {
namespace {

constexpr std::size_t kStack = 256 * 1024, kPage = 4096;  // reserved, not committed; one guard page below

bool same(Site a, Site b) { return a.line() == b.line() && a.column() == b.column() && std::strcmp(a.file_name(), b.file_name()) == 0; }
const char* word(WarpOp op) {
  constexpr const char* names[] = {"__syncwarp", "shuffle", "ballot", "mma", "ldmatrix", "wgmma"};
  return names[static_cast<int>(op)];
}

__attribute__((always_inline)) inline void jump(Thread* to) {
  Thread* self = block->current;
  block->current = to;
  ++stats.switches;
  if (to != &block->host) {
    threadIdx = to->index, lane_index = to->lane;
    block->warp = block->warps[static_cast<std::size_t>(to->warp)].get();
  }
  ASAN(__sanitizer_start_switch_fiber(&self->fake, to->bottom, to->size);)
  TSAN(__tsan_switch_to_fiber(to->tsan, __tsan_switch_to_fiber_no_sync);)
  const context::transfer_t t = context::jump_fcontext(to->context, self);
  ASAN(__sanitizer_finish_switch_fiber(self->fake, nullptr, nullptr);)
  static_cast<Thread*>(t.data)->context = t.fctx;
}

int pick(std::uint32_t mask) { return order == Order::forward ? std::countr_zero(mask) : 31 - std::countl_zero(mask); }

std::string stuck() {
  const Block& b = *block;
  std::string s = "no thread can go on;";
  for (int w = 0; w < b.warp_count; ++w) {
    const Warp& p = *b.warps[static_cast<std::size_t>(w)];
    const std::string lanes = std::to_string(std::popcount(p.arrived));
    if (p.arrived) s += " warp " + std::to_string(w) + ": " + lanes + " lanes at " + word(p.op) + " " + where(p.site) + ";";
  }
  for (const auto& [at, m] : b.mbarriers) {
    if (!m.waiting.empty())
      s += " " + std::to_string(m.waiting.size()) + " threads at an mbarrier " + where(m.site) + ", which lacks " +
           std::to_string(m.pending) + " arrivals and " + std::to_string(m.bytes) + " bytes;";
  }
  if (b.arrived)
    s += " " + std::to_string(b.arrived) + " of " + std::to_string(b.count - b.returned) + " threads at __syncthreads " + where(b.site);
  return s;
}

// Goes on with the next thread that can: of this warp while it has one, so that warps run as far apart as barriers allow.
__attribute__((always_inline)) inline void go_on(bool from_first_warp) {
  Block& b = *block;
  Warp* w = b.warp;
  if (from_first_warp || !w->runnable) {
    w = nullptr;
    for (int i = 0; i < b.warp_count && !w; ++i) {
      const int j = order == Order::reverse ? b.warp_count - 1 - i : i;
      if (b.warps[static_cast<std::size_t>(j)]->runnable) w = b.warps[static_cast<std::size_t>(j)].get();
    }
  }
  if (!w) {
    if (b.returned != b.count) b.error = head() + stuck();
    return jump(&b.host);
  }
  Thread* next = w->threads[pick(w->runnable)];
  if (next != b.current) jump(next);
}

void release_barrier() {
  TSAN(++block->token;)
  block->arrived = 0, ++block->epoch;
  for (int w = 0; w < block->warp_count; ++w) {
    Warp& p = *block->warps[static_cast<std::size_t>(w)];
    p.runnable = p.alive;
  }
}

void entry(context::transfer_t t) {
  ASAN(__sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);)
  static_cast<Thread*>(t.data)->context = t.fctx;
  for (;;) {
    block->body(block->data);
    Thread* self = block->current;
    const std::uint32_t bit = 1u << self->lane;
    block->warp->alive &= ~bit;
    block->warp->runnable &= ~bit;
    ++block->returned;
    const bool left = !self->products.empty();
    self->copies.clear(), self->groups.clear(), self->products.clear(), self->product_groups = 0, self->fenced = false;
    if (left) fail("returned while a wgmma ran");
    const bool opens = block->arrived && block->arrived + block->returned == block->count;  // a returned thread counts as arrived
    if (opens) release_barrier();
    go_on(opens);
  }
}

void new_context(Thread& t) {
  ASAN(t.bottom = t.stack; t.size = kStack; __asan_unpoison_memory_region(t.stack, kStack);)
  TSAN(if (t.tsan) __tsan_destroy_fiber(t.tsan); t.tsan = __tsan_create_fiber(0);)
  t.context = context::make_fcontext(t.stack + kStack - t.stagger, kStack - t.stagger, entry);
}

ASAN(void find_host_stack(Thread& host) {
  pthread_attr_t a;
  void* low;
  pthread_getattr_np(pthread_self(), &a);
  pthread_attr_getstack(&a, &low, &host.size);
  pthread_attr_destroy(&a);
  host.bottom = low;
})

std::unique_ptr<Thread> new_thread(std::size_t number) {
  auto t = std::make_unique<Thread>();
  void* m = mmap(nullptr, kStack + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (m == MAP_FAILED) throw std::runtime_error("shim: no memory for fiber stacks");
  mprotect(m, kPage, PROT_NONE);
  t->stack = static_cast<char*>(m) + kPage;
  t->stagger = number % 32 * 192;  // equal offsets in a page would fight for the same cache sets
  new_context(*t);
  return t;
}

}  // namespace

std::string where(Site site) {
  const std::string file = site.file_name();
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(site.line()) + ":" + std::to_string(site.column());
}
std::string head() {
  const std::string at = std::to_string(blockIdx.x) + "," + std::to_string(blockIdx.y) + "," + std::to_string(blockIdx.z);
  return std::string(kernel_name) + " block (" + at + "): ";
}

void new_block() {
  struct Owner {
    ~Owner() {
      for (const auto& t : block->threads) {
        TSAN(if (t->tsan) __tsan_destroy_fiber(t->tsan);)
        munmap(t->stack - kPage, kStack + kPage);
      }
      delete std::exchange(block, nullptr);
    }
  };
  block = new Block;
  static thread_local Owner owner;
}

void want_threads(int count) {
  Block& b = *block;
  ASAN(if (!b.host.bottom) find_host_stack(b.host);)
  TSAN(b.host.tsan = __tsan_get_current_fiber();)
  while (static_cast<int>(b.threads.size()) < count) b.threads.push_back(new_thread(b.threads.size()));
  while (b.warps.size() * 32 < b.threads.size()) b.warps.push_back(std::make_unique<Warp>());
}

void run_threads() {
  block->warp = block->warps[0].get();
  go_on(true);
}

void abandon_threads() {
  TSAN(for (auto& t
            : block->threads) __tsan_switch_to_fiber(t->tsan, 1),
       __tsan_release(block->token);
       __tsan_switch_to_fiber(block->host.tsan, 1); __tsan_acquire(block->token);)
  for (auto& t : block->threads)
    new_context(*t), t->copies.clear(), t->groups.clear(), t->products.clear(), t->product_groups = 0, t->fenced = false;
}

// Its text is moved from, and callers build theirs in a function of its own, because the frames of an abandoned fiber are never left.
void fail(std::string&& what) {
  const std::string* taken = new std::string(std::move(what));
  block->error = head() + "thread " + std::to_string(block->current->warp * 32 + block->current->lane) + ": " + *taken;
  delete taken;
  jump(&block->host);
  std::abort();
}

Slot& collective(WarpOp op, const void* in, std::size_t bytes, void (*all)(Slot&), Site site) {
  Warp& w = *block->warp;
  const int lane = block->current->lane;
  if (w.alive != w.all) fail([&] { return std::string(word(op)) + " " + where(site) + " in a warp with returned lanes"; }());
  if (op >= WarpOp::mma && w.all != ~0u)
    fail([&] { return std::string(word(op)) + " " + where(site) + " in a warp of fewer than 32 lanes"; }());
  if (!w.arrived) {
    w.op = op, w.site = site;
  } else if (w.op != op || !same(w.site, site)) {
    fail([&] {
      return "warp diverged: this lane at " + std::string(word(op)) + " " + where(site) + ", others at " + word(w.op) + " " + where(w.site);
    }());
  }
  Slot& s = w.slots[w.phase & 1];
  for (std::size_t i = 0; i < bytes / 4; ++i) s.in[lane][i] = static_cast<const std::uint32_t*>(in)[i];
  w.arrived |= 1u << lane;
  TSAN(if (op == WarpOp::syncwarp) __tsan_release(&s);)
  if (w.arrived == w.all) {
    if (all) all(s);
    w.arrived = 0, ++w.phase, w.runnable = w.all;
  } else {
    w.runnable &= ~(1u << lane);
  }
  go_on(false);
  TSAN(if (op == WarpOp::syncwarp) __tsan_acquire(&s);)
  return s;
}

void sleep_here() {
  block->warp->runnable &= ~(1u << block->current->lane);
  go_on(false);
}
// They go on at once, and the current thread after them, so that nothing it does next comes before.
void wake(const std::vector<Thread*>& threads) {
  if (threads.empty()) return;
  for (const Thread* t : threads) block->warps[static_cast<std::size_t>(t->warp)]->runnable |= 1u << t->lane;
  jump(threads.front());
}

void block_barrier(Site site) {
  Block& b = *block;
  if (!b.arrived) {
    b.site = site;
  } else if (!same(b.site, site)) {
    fail([&] { return "divergent barrier: this thread at __syncthreads " + where(site) + ", others wait at " + where(b.site); }());
  }
  TSAN(char* token = b.token; __tsan_release(token);)
  ++b.arrived;
  const bool opens = b.arrived + b.returned == b.count;
  if (opens) {
    ++stats.barriers;
    release_barrier();
  } else {
    b.warp->runnable &= ~(1u << b.current->lane);
  }
  go_on(opens);
  TSAN(__tsan_acquire(token);)
}

}  // namespace shim
