// Mbarriers, bulk tensor copies and wgmma by software.
#include "tests/shim/hopper.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "tests/shim/fibers.h"

namespace shim {
namespace {

constexpr int kRowBytes = 128, kFirstAddress = 16;

char* at(unsigned address) {  // what the hardware finds there
  const std::ptrdiff_t offset = static_cast<std::ptrdiff_t>(address) - kFirstAddress;
  if (offset < 0 || offset + 16 > static_cast<std::ptrdiff_t>(block->shared_bytes))
    fail("a tile lies outside of the block's shared memory");
  return block->shared + offset;
}
unsigned swizzled(unsigned address) { return address ^ (address >> 7 & 7u) << 4; }
unsigned chunk_of(unsigned address) { return address & ~15u; }

Mbarrier& mbarrier(void* p) {
  const auto found = block->mbarriers.find(p);
  if (found == block->mbarriers.end()) fail("an mbarrier that was never initialised");
  return found->second;
}

// 16 bytes of a box at a time: column chunk c of row r, or zeros outside of the matrix.
template <class F>
void each_chunk(const BoxCopy& copy, F&& f) {
  for (int r = 0; r < copy.map.box_rows; ++r) {
    for (int c = 0; c < 8; ++c) {
      std::uint16_t values[8] = {};
      for (int i = 0; i < 8; ++i) {
        const std::int64_t row = copy.row + r, column = copy.column + 8 * c + i;
        if (row >= 0 && row < copy.map.rows && column >= 0 && column < copy.map.columns)
          values[i] = copy.map.data[row * copy.map.stride + column];
      }
      f(at(swizzled(shared_address(copy.to) + static_cast<unsigned>(r * kRowBytes + 16 * c))), values);
    }
  }
}

void land(Mbarrier& m) {
  for (const BoxCopy& copy : m.copies) {
    each_chunk(copy, [](char* to, const std::uint16_t* values) {
      std::memcpy(to, values, 16);
      block->cell(to).in_flight = false;
    });
    m.bytes -= copy.map.box_rows * kRowBytes;
  }
  m.copies.clear();
}

void complete(Mbarrier& m) {
  if (m.pending != 0) return;
  if (m.waiting.empty() && !m.copies.empty()) return;  // as late as possible: when somebody waits
  land(m);
  if (m.bytes != 0) return;
  ++m.phase, m.pending = m.arrivals;
  const std::vector<Thread*> woken = std::exchange(m.waiting, {});
  wake(woken);
}

float value(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

// Element (row, k) of an operand, PTX ISA "Strides": rows of the tile are rows of the operand, or its columns are.
std::uint16_t element(std::uint64_t tile, bool columns, int row, int k, std::vector<int>& cells) {
  const auto start = static_cast<unsigned>(tile & 0x3fff) << 4, panel = static_cast<unsigned>(tile >> 16 & 0x3fff) << 4,
             group = static_cast<unsigned>(tile >> 32 & 0x3fff) << 4;
  if (tile >> 62 != 1 || (tile >> 49 & 7) != 0) fail("wgmma: a descriptor without the 128-byte swizzle");
  const auto r = static_cast<unsigned>(row), c = static_cast<unsigned>(k);
  const unsigned linear =
      columns ? start + r / 64 * panel + r % 64 * 2 + c / 8 * group + c % 8 * kRowBytes : start + r / 8 * group + r % 8 * kRowBytes + c * 2;
  const unsigned address = swizzled(linear);
  const char* p = at(chunk_of(address));
  const int number = static_cast<int>((p - block->shared) / 16);
  if (cells.empty() || cells.back() != number) {
    if (block->cells[static_cast<std::size_t>(number)].in_flight)
      fail([&] { return "wgmma " + where(block->warp->site) + " reads the destination of a copy nobody waited for"; }());
    cells.push_back(number);
  }
  std::uint16_t bits;
  std::memcpy(&bits, p + (address & 15u), 2);
  return bits;
}

Product& of_lane(Slot& s, int lane) { return *bits_to<Product*>(s.in[lane]); }
Running& running(Thread& t, const Product& p) {
  const auto found = std::find_if(t.products.begin(), t.products.end(), [&](const Running& r) { return r.d == p.d; });
  if (found != t.products.end()) return *found;
  t.products.push_back({p.d, std::vector<float>(p.d, p.d + p.n / 2), {}, {}, 0});
  return t.products.back();
}

void wgmma_all(Slot& s) {
  ++stats.mma;
  const Product& p = of_lane(s, 0);
  std::vector<int> cells;
  float a[16][16], b[16][128], c[16][128];
  Warp& w = *block->warp;
  const int first = w.threads[0]->warp % 4 * 16;
  for (int k = 0; k < 16; ++k) {
    for (int n = 0; n < p.n; ++n) b[k][n] = value(element(p.b, p.b_columns, n, k, cells));
  }
  for (int lane = 0; lane < 32; ++lane) {
    const Product& mine = of_lane(s, lane);
    const int g = lane >> 2, t = 2 * (lane & 3);
    if (mine.n != p.n || mine.add != p.add || mine.b != p.b || mine.a_tile != p.a_tile) fail("wgmma: the lanes of a warp differ");
    for (int i = 0; mine.a && i < 4; ++i) {
      a[g + i % 2 * 8][t + i / 2 * 8] = value(static_cast<std::uint16_t>(mine.a[i]));
      a[g + i % 2 * 8][t + i / 2 * 8 + 1] = value(static_cast<std::uint16_t>(mine.a[i] >> 16));
    }
    Running& r = running(*w.threads[lane], mine);
    if (mine.a) r.operands.push_back({mine.a, {mine.a[0], mine.a[1], mine.a[2], mine.a[3]}});
    for (int i = 0; i < p.n / 2; ++i) c[g + i % 4 / 2 * 8][i / 4 * 8 + t + i % 2] = p.add ? r.result[static_cast<std::size_t>(i)] : 0.0f;
  }
  for (int i = 0; !p.a && i < 16; ++i) {
    for (int k = 0; k < 16; ++k) a[i][k] = value(element(p.a_tile, false, first + i, k, cells));
  }
  for (int i = 0; i < 16; ++i) {
    for (int k = 0; k < 16; ++k) {
      for (int n = 0; n < p.n; ++n) c[i][n] += a[i][k] * b[k][n];
    }
  }
  std::sort(cells.begin(), cells.end());
  cells.erase(std::unique(cells.begin(), cells.end()), cells.end());
  for (const int cell : cells) ++block->cells[static_cast<std::size_t>(cell)].products;
  for (int lane = 0; lane < 32; ++lane) {
    const Product& mine = of_lane(s, lane);
    const int g = lane >> 2, t = 2 * (lane & 3);
    Running& r = running(*w.threads[lane], mine);
    for (int i = 0; i < p.n / 2; ++i) {
      r.result[static_cast<std::size_t>(i)] = c[g + i % 4 / 2 * 8][i / 4 * 8 + t + i % 2];
      mine.d[i] = NAN;
    }
    r.group = w.threads[lane]->product_groups;
    for (std::size_t i = 0; lane == 0 && i < cells.size(); ++i) r.cells.push_back({r.group, cells[i]});
  }
}

}  // namespace

unsigned shared_address(const void* p) { return static_cast<unsigned>(static_cast<const char*>(p) - block->shared) + kFirstAddress; }

TensorMap tensor_map(const void* data, std::int64_t rows, std::int64_t columns, std::int64_t stride, int box_rows) {
  if (reinterpret_cast<std::uintptr_t>(data) % 16 || stride % 8 || rows <= 0 || columns <= 0 || box_rows <= 0 || box_rows > 256)
    throw std::runtime_error("cuTensorMapEncodeTiled: CUDA error 1");
  return {static_cast<const std::uint16_t*>(data), rows, columns, stride, box_rows};
}

void barrier_init(void* barrier, int arrivals) {
  if (!block->holds(barrier, 8) || shared_address(barrier) % 8) fail("an mbarrier outside of shared memory, or not at a multiple of 8");
  Mbarrier m;
  m.arrivals = m.pending = arrivals;
  block->mbarriers[barrier] = m;
}
void barrier_arrive(void* barrier, unsigned expected_bytes) {
  Mbarrier& m = mbarrier(barrier);
  m.bytes += expected_bytes;
  if (--m.pending < 0) fail("more arrivals than the mbarrier counts");
  complete(m);
}
void barrier_wait(void* barrier, unsigned parity, Site site) {
  Mbarrier& m = mbarrier(barrier);
  while (m.phase % 2 == parity) {
    m.site = site;
    m.waiting.push_back(block->current);
    if (m.pending == 0) {
      land(m);
      if (m.bytes == 0) {
        ++m.phase, m.pending = m.arrivals;
        auto woken = std::exchange(m.waiting, {});
        woken.pop_back();  // this thread
        wake(woken);
        return;
      }
    }
    sleep_here();
  }
}

void copy_box(void* to, const TensorMap& map, int column, int row, void* barrier) {
  if (shared_address(to) % 1024) fail("a bulk tensor copy with the 128-byte swizzle: wanted a multiple of 1024");
  const BoxCopy copy{static_cast<char*>(to), map, column, row};
  each_chunk(copy, [](char* chunk, const std::uint16_t*) {
    Cell& c = block->cell(chunk);
    if (c.in_flight) fail("a bulk tensor copy: its destination has a copy in flight already");
    if (c.products) fail("a bulk tensor copy overwrites what a running wgmma reads");
    c.in_flight = true;
    std::memset(chunk, 0xff, 16);
  });
  Mbarrier& m = mbarrier(barrier);
  m.copies.push_back(copy);
  complete(m);
}

void wgmma(const Product& p, Site site) {
  if (!block->current->fenced) fail([&] { return "wgmma " + where(site) + " without wgmma_fence since the last wait"; }());
  const Product* const mine = &p;
  collective(WarpOp::wgmma, &mine, sizeof mine, wgmma_all, site);
}
void wgmma_fence() { block->current->fenced = true; }
void wgmma_commit() { ++block->current->product_groups; }
void wgmma_wait(int may_go_on) {
  Thread& t = *block->current;
  t.fenced = false;
  const int first_open = t.product_groups - may_go_on;
  const auto done = [&](const Running& r) { return r.group < first_open; };
  for (Running& r : t.products) {
    // An accumulator may be in several groups; what the finished ones read may be written over, though the sum is not there yet.
    std::erase_if(r.cells, [&](const auto& read) {
      if (read.first < first_open) --block->cells[static_cast<std::size_t>(read.second)].products;
      return read.first < first_open;
    });
    if (!done(r)) continue;
    for (const auto& [registers, then] : r.operands) {
      if (!std::equal(then.begin(), then.end(), registers)) fail("an operand in registers changed while its wgmma ran");
    }
    std::copy(r.result.begin(), r.result.end(), r.d);
  }
  t.products.erase(std::remove_if(t.products.begin(), t.products.end(), done), t.products.end());
}
void wgmma_done(const float* d, Site site) {
  for (const Running& r : block->current->products) {
    if (r.d == d) fail([&] { return "accumulators are looked at " + where(site) + " while their wgmma runs"; }());
  }
}

}  // namespace shim
