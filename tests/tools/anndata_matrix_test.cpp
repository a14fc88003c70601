#include <gtest/gtest.h>

#include "engine/errors.h"
#include "tests/support/expect_error.h"
#include "tests/support/test_data.h"
#include "tests/tools/anndata_files.h"
#include "tools/anndata/matrix.h"

namespace lc {
namespace {

using test::Axis;
using test::holds;
using test::message_of;
using test::Table;
using test::TemporaryFolder;

void expect_rows(const CellMatrix& matrix, const Table& table, std::uint64_t begin, std::uint64_t end) {
  const CsrBlock block = matrix.read_rows(begin, end);
  ASSERT_EQ(block.rows(), end - begin);
  EXPECT_EQ(block.first, begin);
  Table found{end - begin, table.genes, std::vector<float>((end - begin) * table.genes, 0.0f)};
  for (size_t row = 0; row < block.rows(); ++row) {
    const auto genes = block.genes_of(row);
    EXPECT_TRUE(std::is_sorted(genes.begin(), genes.end()));
    for (size_t i = 0; i < genes.size(); ++i) found.at(row, static_cast<std::uint64_t>(genes[i])) = block.values_of(row)[i];
  }
  EXPECT_EQ(found.values, std::vector<float>(table.values.begin() + static_cast<std::ptrdiff_t>(begin * table.genes),
                                             table.values.begin() + static_cast<std::ptrdiff_t>(end * table.genes)));
}

void expect_same(const Hdf5& object, const Table& table, const std::string& form) {
  const auto matrix = open_matrix(object);
  EXPECT_EQ(matrix->form(), form);
  EXPECT_EQ(matrix->cells(), table.cells);
  EXPECT_EQ(matrix->genes(), table.genes);
  for (std::uint64_t begin = 0; begin < table.cells; begin += 13)
    expect_rows(*matrix, table, begin, std::min<std::uint64_t>(begin + 13, table.cells));
  expect_rows(*matrix, table, 5, 6);
  expect_rows(*matrix, table, 7, 7);
}

template <class Value>
void check_all_forms(const Hdf5& file, const std::string& name, const Table& table) {
  for (const H5Storage& storage : {H5Storage{}, H5Storage{.gzip = 4}}) {
    const std::string prefix = name + (storage.gzip > 0 ? "/gzip" : "/plain");
    test::put_sparse<Value>(file, prefix + "/csr", table, Axis::cells, storage);
    test::put_sparse<Value, std::int64_t>(file, prefix + "/csc", table, Axis::genes, storage);
    test::put_dense<Value>(file, prefix + "/dense", table, storage);
    SCOPED_TRACE(prefix);
    expect_same(file.at(prefix + "/csr"), table, "CSR");
    expect_same(file.at(prefix + "/csc"), table, "CSC");
    expect_same(file.at(prefix + "/dense"), table, "dense");
  }
}

TEST(AnnDataMatrix, EveryFormAndNumberTypeGivesTheSameRows) {
  const TemporaryFolder folder;
  const Hdf5 file = Hdf5::create(folder / "a.h5");
  const Table table = test::random_counts(33, 65);
  check_all_forms<float>(file, "f32", table);
  check_all_forms<double>(file, "f64", table);
  check_all_forms<std::int8_t>(file, "i8", table);
  check_all_forms<std::uint8_t>(file, "u8", table);
  check_all_forms<std::int16_t>(file, "i16", table);
  check_all_forms<std::uint16_t>(file, "u16", table);
  check_all_forms<std::int32_t>(file, "i32", table);
  check_all_forms<std::uint32_t>(file, "u32", table);
  check_all_forms<std::int64_t>(file, "i64", table);
  check_all_forms<std::uint64_t>(file, "u64", table);
}

TEST(AnnDataMatrix, SmallIndexTypesAreRead) {
  const TemporaryFolder folder;
  const Hdf5 file = Hdf5::create(folder / "a.h5");
  Table table = test::random_counts(9, 11);
  test::put_sparse<float, std::uint8_t>(file, "u8", table);
  test::put_sparse<float, std::uint64_t>(file, "u64", table);
  expect_rows(*open_matrix(file.at("u8")), table, 0, 9);
  expect_rows(*open_matrix(file.at("u64")), table, 0, 9);
}

Hdf5 sparse_by_hand(const Hdf5& file, const std::string& path, const std::vector<std::int32_t>& indptr,
                    const std::vector<std::int32_t>& indices, const std::vector<float>& data, const std::vector<std::int64_t>& shape) {
  const Hdf5 group = file.group(path);
  group.set("encoding-type", "csr_matrix");
  group.set("shape", shape);
  group.write("indptr", indptr);
  group.write("indices", indices);
  group.write("data", data);
  return group;
}

TEST(AnnDataMatrix, RowsComeSortedWithoutZerosAndWithRepeatedGenesSummed) {
  const TemporaryFolder folder;
  const Hdf5 file = Hdf5::create(folder / "a.h5");
  const auto matrix = open_matrix(sparse_by_hand(file, "X", {0, 4, 4, 7}, {3, 1, 3, 0, 2, 0, 2}, {5, 1, 2, 0, 4, 0, -4}, {3, 4}));
  const CsrBlock block = matrix->read_rows(0, 3);
  EXPECT_EQ(block.offsets, (std::vector<std::int64_t>{0, 2, 2, 2}));
  EXPECT_EQ(block.genes, (std::vector<std::int32_t>{1, 3}));
  EXPECT_EQ(block.values, (std::vector<float>{1, 7}));
  EXPECT_EQ(block.view().cells(), 3);
}

TEST(AnnDataMatrix, DamagedMatricesAreNamed) {
  const TemporaryFolder folder;
  const Hdf5 file = Hdf5::create(folder / "a.h5");
  const auto message = [&](const std::string& name, const std::vector<std::int32_t>& indptr, const std::vector<std::int32_t>& indices,
                           const std::vector<float>& data, const std::vector<std::int64_t>& shape) {
    return message_of<DataError>([&] { open_matrix(sparse_by_hand(file, name, indptr, indices, data, shape))->read_rows(0, 2); });
  };
  EXPECT_TRUE(holds(message("high", {0, 1, 2}, {0, 4}, {1, 1}, {2, 4}), "/high/indices: found 4, wanted 0 to 3"));
  EXPECT_TRUE(holds(message("negative", {0, 1, 2}, {-1, 0}, {1, 1}, {2, 4}), "found -1"));
  EXPECT_TRUE(holds(message("falling", {0, 2, 1}, {0, 1}, {1, 1}, {2, 4}), "/falling/indptr: not a rising list"));
  EXPECT_TRUE(holds(message("long", {0, 1, 9}, {0, 1}, {1, 1}, {2, 4}), "not a rising list"));
  EXPECT_TRUE(holds(message("rows", {0, 1}, {0, 1}, {1, 1}, {2, 4}), "2 entries, wanted 3"));
  EXPECT_TRUE(holds(message("lengths", {0, 1, 2}, {0, 1}, {1}, {2, 4}), "differ in length"));
  EXPECT_TRUE(holds(message("shape", {0, 1, 2}, {0, 1}, {1, 1}, {2}), "'shape'"));
  EXPECT_TRUE(holds(message_of<DataError>([&] { open_matrix(file.group("empty")); }), "is not a matrix this program reads"));
  const Hdf5 cube = file.write<float>("cube", std::vector<float>(8), {2, 2, 2});
  EXPECT_TRUE(holds(message_of<DataError>([&] { open_matrix(cube); }), "/cube: 3 axes"));
}

}  // namespace
}  // namespace lc
