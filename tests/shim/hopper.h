// What stands behind the twin of hopper.cuh. Mistakes that are errors here: a product of what no barrier said has arrived, of registers
// that change while it runs, of accumulators looked at before the wait; a copy over what a running product reads; too many arrivals.
#pragma once
#include "tests/shim/shim.h"

namespace shim {

struct alignas(64) TensorMap {
  const std::uint16_t* data;
  std::int64_t rows, columns, stride;
  int box_rows;
};
TensorMap tensor_map(const void* data, std::int64_t rows, std::int64_t columns, std::int64_t stride, int box_rows);

unsigned shared_address(const void* p);  // as the kernel sees it: begins at a multiple of 16 and of no more
void barrier_init(void* barrier, int arrivals);
void barrier_arrive(void* barrier, unsigned expected_bytes);
void barrier_wait(void* barrier, unsigned parity, Site site);
void copy_box(void* to, const TensorMap& map, int column, int row, void* barrier);

struct Product {  // of one warp: 16 rows of d
  float* d;       // the lane's N/2 numbers
  int n;
  bool b_columns, add;
  std::uint64_t a_tile;
  const std::uint32_t* a;  // the lane's four registers, or null: a_tile
  std::uint64_t b;
};
void wgmma(const Product& p, Site site);
void wgmma_fence();
void wgmma_commit();
void wgmma_wait(int may_go_on);
void wgmma_done(const float* d, Site site);

}  // namespace shim
