// How attention's rows are shared out to blocks: the texts of a cell side by side, the longest cells first.
#include <gtest/gtest.h>

#include <array>

#include "tests/support/op_case.h"

namespace lc::test {
namespace {

std::vector<std::int32_t> sequences_of(const kernels::Strips& strips) {  // device memory of the shim is host memory
  std::vector<std::int32_t> numbers;
  for (std::int64_t i = 0; i < strips.count; ++i) numbers.push_back(strips.all[i].sequence);
  return numbers;
}
PackingPtr packed(const std::vector<std::int32_t>& lengths, const std::vector<std::int32_t>& kv_of = {}) {
  test_queue() = Queue{Device::cuda};
  const PackingPtr p = packing_of(lengths, 1, kv_of);
  test_queue() = Queue{};
  return p;
}

TEST(CudaPacking, the_longest_sequence_comes_first_and_groups_of_eight_read_the_same_keys) {
  const PackingPtr p = packed({17, 0, 144});
  const std::vector<std::int32_t> all = sequences_of(p->view().strips);
  EXPECT_EQ(all, (std::vector<std::int32_t>{2, 2, 2, 2, 2, 2, 2, 2, 2, -1, -1, -1, -1, -1, -1, -1, 0, 0, -1, -1, -1, -1, -1, -1}));
  const kernels::Strip last = p->view().strips.all[17];
  EXPECT_EQ(last.first_row, 16);
  EXPECT_EQ(last.token, 16);
  EXPECT_EQ(last.rows, 1);
}
TEST(CudaPacking, the_texts_of_a_cell_share_groups_and_each_reads_itself_where_it_must) {
  const PackingPtr p = packed({40, 20, 33}, {1, 0, 1});
  EXPECT_EQ(sequences_of(p->view().strips), (std::vector<std::int32_t>{0, 0, 0, 2, 2, 2, -1, -1, 1, 1, -1, -1, -1, -1, -1, -1}));
  EXPECT_EQ(p->view().strips.of_keys[0], 8);
  EXPECT_EQ(p->view().strips.of_keys[1], 10);
  EXPECT_EQ(p->view().strips.of_keys[3], 6);
  EXPECT_EQ(p->own_view().kv_of, nullptr);
  EXPECT_EQ(p->own_view().strips.count, 24);
}
TEST(CudaPacking, blocks_leave_no_rest_of_a_few_rows_and_those_with_the_most_work_come_first) {
  const PackingPtr p = packed({400, 256, 0, 448});
  const kernels::RowBlocks blocks = p->view().blocks_of_192;
  std::vector<std::array<std::int32_t, 4>> all;
  for (std::int64_t i = 0; i < blocks.count; ++i)
    all.push_back({blocks.all[i].sequence, blocks.all[i].first_row, blocks.all[i].token, blocks.all[i].rows});
  const std::vector<std::array<std::int32_t, 4>> wanted = {{3, 0, 656, 192},   {0, 0, 0, 192},    {3, 192, 848, 128}, {3, 320, 976, 128},
                                                           {0, 192, 192, 128}, {0, 320, 320, 80}, {1, 0, 400, 128},   {1, 128, 528, 128}};
  EXPECT_EQ(all, wanted);
}

}  // namespace
}  // namespace lc::test
