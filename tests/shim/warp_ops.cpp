// The heavy twins: mma, ldmatrix with its bank conflicts, cp.async.
#include <algorithm>
#include <bit>

#include "tests/shim/fibers.h"

namespace shim {
namespace {

float low(std::uint32_t u) { return std::bit_cast<float>(u << 16); }
float high(std::uint32_t u) { return std::bit_cast<float>(u & 0xffff0000u); }

void read_row(const char* p, std::uint16_t (&to)[8]) {
  if (reinterpret_cast<std::uintptr_t>(p) % 16) fail("ldmatrix: wanted row addresses at multiples of 16");
  if (!block->holds(p, 16)) fail("ldmatrix: a row lies outside of the block's shared memory");
  Cell& c = block->cell(p);
  const int warp = block->current->warp, epoch = block->epoch;
  if (c.in_flight)
    fail([&] { return "ldmatrix " + where(block->warp->site) + " reads the destination of a cp.async nobody waited for"; }());
  if (c.write_epoch == epoch && c.write_warp != warp)
    fail([&] {
      return "ldmatrix " + where(block->warp->site) + " reads what warp " + std::to_string(c.write_warp) + " copied, no barrier since";
    }());
  if (c.read_epoch != epoch) c.read_epoch = epoch, c.read_warps = 0;
  c.read_warps |= 1u << warp;
  std::memcpy(to, p, 16);
}

template <bool kTrans>
void ldmatrix(Slot& s) {
  ++stats.ldmatrix;
  for (int m = 0; m < 4; ++m) {
    std::uint16_t e[8][8];
    int banks[8] = {};
    for (int r = 0; r < 8; ++r) {
      const auto* p = bits_to<const char*>(s.in[m * 8 + r]);
      read_row(p, e[r]);
      ++banks[reinterpret_cast<std::uintptr_t>(p) / 16 % 8];
    }
    stats.ldmatrix_extra += *std::max_element(banks, banks + 8) - 1;
    for (int lane = 0; lane < 32; ++lane) {
      const int g = lane >> 2, t = 2 * (lane & 3);
      const std::uint32_t x = kTrans ? e[t][g] : e[g][t], y = kTrans ? e[t + 1][g] : e[g][t + 1];
      s.out[lane][m] = x | y << 16;
    }
  }
}

}  // namespace

void ballot_all(Slot& s) {
  std::uint32_t votes = 0;
  for (int i = 0; i < 32; ++i) votes |= s.in[i][0] << i;
  for (auto& out : s.out) out[0] = votes;
}
void mma_all(Slot& s) {
  ++stats.mma;
  float a[16][16], b[16][8], c[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane >> 2, t = 2 * (lane & 3);
    const std::uint32_t* w = s.in[lane];
    a[g][t] = low(w[0]), a[g][t + 1] = high(w[0]);
    a[g + 8][t] = low(w[1]), a[g + 8][t + 1] = high(w[1]);
    a[g][t + 8] = low(w[2]), a[g][t + 9] = high(w[2]);
    a[g + 8][t + 8] = low(w[3]), a[g + 8][t + 9] = high(w[3]);
    b[t][g] = low(w[4]), b[t + 1][g] = high(w[4]);
    b[t + 8][g] = low(w[5]), b[t + 9][g] = high(w[5]);
    c[g][t] = std::bit_cast<float>(w[6]), c[g][t + 1] = std::bit_cast<float>(w[7]);
    c[g + 8][t] = std::bit_cast<float>(w[8]), c[g + 8][t + 1] = std::bit_cast<float>(w[9]);
  }
  for (int i = 0; i < 16; ++i) {
    for (int k = 0; k < 16; ++k) {
      for (int j = 0; j < 8; ++j) c[i][j] += a[i][k] * b[k][j];
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane >> 2, t = 2 * (lane & 3);
    const float r[4] = {c[g][t], c[g][t + 1], c[g + 8][t], c[g + 8][t + 1]};
    std::memcpy(s.out[lane], r, 16);
  }
}
void ldmatrix_all(Slot& s) { ldmatrix<false>(s); }
void ldmatrix_trans_all(Slot& s) { ldmatrix<true>(s); }

void copy_async(void* to, const void* from, std::size_t bytes) {
  if (reinterpret_cast<std::uintptr_t>(to) % 16 || (bytes && reinterpret_cast<std::uintptr_t>(from) % 16))
    fail("cp.async: wanted addresses at multiples of 16");
  if (!block->holds(to, 16)) fail("cp.async: destination outside of the block's shared memory");
  Cell& c = block->cell(to);
  const int warp = block->current->warp;
  if (c.in_flight) fail("cp.async: the destination has a copy in flight already");
  if (c.read_epoch == block->epoch && (c.read_warps & ~(1u << warp)))
    fail("cp.async: overwrites what another warp has read since the last barrier");
  if (c.write_epoch == block->epoch && c.write_warp != warp)
    fail("cp.async: overwrites what another warp has written since the last barrier");
  c.in_flight = true;
  std::memset(to, 0xff, 16);
  block->current->copies.push_back({to, from, bytes});
}

void copy_async_commit() { block->current->groups.push_back(block->current->copies.size()); }

void copy_async_wait(int may_stay_open) {
  Thread& t = *block->current;
  const std::ptrdiff_t closing = static_cast<std::ptrdiff_t>(t.groups.size()) - may_stay_open;
  if (closing <= 0) return;
  const std::size_t n = t.groups[static_cast<std::size_t>(closing - 1)];
  for (std::size_t i = 0; i < n; ++i) {
    char buffer[16] = {};
    if (t.copies[i].bytes) std::memcpy(buffer, t.copies[i].from, 16);
    std::memcpy(t.copies[i].to, buffer, 16);
    Cell& c = block->cell(t.copies[i].to);
    c.in_flight = false, c.write_epoch = block->epoch, c.write_warp = t.warp;
  }
  t.copies.erase(t.copies.begin(), t.copies.begin() + static_cast<std::ptrdiff_t>(n));
  t.groups.erase(t.groups.begin(), t.groups.begin() + closing);
  for (auto& g : t.groups) g -= n;
}

}  // namespace shim
