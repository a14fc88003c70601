#include "tools/anndata/matrix.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "engine/errors.h"
#include "tools/anndata/frame.h"

namespace lc {

namespace {

constexpr std::uint64_t kSliceItems = std::uint64_t{1} << 22;  // what is read at once where a whole object is passed through

struct SparseParts {
  explicit SparseParts(const Hdf5& group) : data(group.at("data")), indices(group.at("indices")), where(group.where()) {
    pointers = group.at("indptr").read<std::int64_t>();
    if (data.shape().size() != 1 || indices.shape().size() != 1 || data.rows() != indices.rows())
      throw DataError(fmt::format("{}: data and indices differ in length; the file is damaged", where));
    const bool rising = std::is_sorted(pointers.begin(), pointers.end());
    if (pointers.empty() || pointers.front() != 0 || !rising || static_cast<std::uint64_t>(pointers.back()) > data.rows())
      throw DataError(fmt::format("{}/indptr: not a rising list from 0 to the number of entries; the file is damaged", where));
  }
  void check(std::span<const std::int32_t> found, std::uint64_t limit) const {
    for (std::int32_t index : found)
      if (index < 0 || static_cast<std::uint64_t>(index) >= limit)
        throw DataError(fmt::format("{}/indices: found {}, wanted 0 to {}; the file is damaged", where, index, limit - 1));
  }
  Hdf5 data, indices;
  std::vector<std::int64_t> pointers;
  std::string where;
};

class CsrMatrix final : public CellMatrix {
 public:
  CsrMatrix(const Hdf5& group, SparseShape shape) : CellMatrix(shape.rows, shape.columns, "CSR"), parts_(group) {
    if (parts_.pointers.size() != shape.rows + 1)
      throw DataError(
          fmt::format("{}/indptr: {} entries, wanted {}; the file is damaged", parts_.where, parts_.pointers.size(), shape.rows + 1));
  }
  CsrBlock read_rows(std::uint64_t begin, std::uint64_t end) const override {
    CsrBlock block;
    block.first = begin;
    const std::int64_t* pointer = parts_.pointers.data();
    for (std::uint64_t row = begin; row <= end; ++row) block.offsets.push_back(pointer[row] - pointer[begin]);
    const auto from = static_cast<std::uint64_t>(pointer[begin]), to = static_cast<std::uint64_t>(pointer[end]);
    block.genes = parts_.indices.read_rows<std::int32_t>(from, to);
    block.values = parts_.data.read_rows<float>(from, to);
    parts_.check(block.genes, genes());
    tidy(block);
    return block;
  }

 private:
  SparseParts parts_;
};

class CscMatrix final : public CellMatrix {
 public:
  CscMatrix(const Hdf5& group, SparseShape shape) : CellMatrix(shape.rows, shape.columns, "CSC"), parts_(group) {
    if (parts_.pointers.size() != shape.columns + 1)
      throw DataError(
          fmt::format("{}/indptr: {} entries, wanted {}; the file is damaged", parts_.where, parts_.pointers.size(), shape.columns + 1));
  }
  CsrBlock read_rows(std::uint64_t begin, std::uint64_t end) const override {
    if (whole_.offsets.empty()) turn();
    CsrBlock block;
    block.first = begin;
    for (std::uint64_t row = begin; row <= end; ++row) block.offsets.push_back(whole_.offsets[row] - whole_.offsets[begin]);
    const std::int64_t from = whole_.offsets[begin], to = whole_.offsets[end];
    block.genes.assign(whole_.genes.begin() + from, whole_.genes.begin() + to);
    block.values.assign(whole_.values.begin() + from, whole_.values.begin() + to);
    return block;
  }

 private:
  template <class F>
  void for_each_slice(F f) const {
    const auto entries = static_cast<std::uint64_t>(parts_.pointers.back());
    for (std::uint64_t from = 0; from < entries; from += kSliceItems) f(from, std::min(from + kSliceItems, entries));
  }
  void turn() const {
    CsrBlock turned;
    turned.offsets.assign(cells() + 1, 0);
    for_each_slice([&](std::uint64_t from, std::uint64_t to) {
      const std::vector<std::int32_t> rows = parts_.indices.read_rows<std::int32_t>(from, to);
      parts_.check(rows, cells());
      for (std::int32_t row : rows) ++turned.offsets[static_cast<size_t>(row) + 1];
    });
    std::partial_sum(turned.offsets.begin(), turned.offsets.end(), turned.offsets.begin());
    turned.genes.resize(turned.begin_of(cells()));
    turned.values.resize(turned.begin_of(cells()));
    std::vector<std::int64_t> next(turned.offsets.begin(), turned.offsets.end() - 1);
    std::int32_t gene = 0;
    for_each_slice([&](std::uint64_t from, std::uint64_t to) {
      const std::vector<std::int32_t> rows = parts_.indices.read_rows<std::int32_t>(from, to);
      const std::vector<float> values = parts_.data.read_rows<float>(from, to);
      for (std::uint64_t i = from; i < to; ++i) {
        while (static_cast<std::uint64_t>(parts_.pointers[static_cast<size_t>(gene) + 1]) <= i) ++gene;
        const auto place = static_cast<size_t>(next[static_cast<size_t>(rows[i - from])]++);
        turned.genes[place] = gene;
        turned.values[place] = values[i - from];
      }
    });
    tidy(turned);
    whole_ = std::move(turned);
  }

  SparseParts parts_;
  mutable CsrBlock whole_;  // empty until the first read
};

class DenseMatrix final : public CellMatrix {
 public:
  explicit DenseMatrix(const Hdf5& dataset) : CellMatrix(dataset.shape()[0], dataset.shape()[1], "dense"), dataset_(dataset) {}
  CsrBlock read_rows(std::uint64_t begin, std::uint64_t end) const override {
    CsrBlock block;
    block.first = begin;
    block.offsets.push_back(0);
    const std::uint64_t step = std::max<std::uint64_t>(kSliceItems / std::max<std::uint64_t>(genes(), 1), 1);
    for (std::uint64_t from = begin; from < end; from += step) {
      const std::uint64_t to = std::min(from + step, end);
      const std::vector<float> values = dataset_.read_rows<float>(from, to);
      for (std::uint64_t row = 0; row < to - from; ++row) {
        for (std::uint64_t gene = 0; gene < genes(); ++gene) {
          const float value = values[row * genes() + gene];
          if (value == 0.0f) continue;
          block.genes.push_back(static_cast<std::int32_t>(gene));
          block.values.push_back(value);
        }
        block.offsets.push_back(static_cast<std::int64_t>(block.genes.size()));
      }
    }
    return block;
  }

 private:
  Hdf5 dataset_;
};

}  // namespace

// Brings rows into the form CsrBlock promises; most files have it already, and then only the entries move up.
void tidy(CsrBlock& block) {
  std::vector<std::pair<std::int32_t, float>> row;
  size_t out = 0;
  const auto keep = [&](std::int32_t gene, float value) {
    if (value == 0.0f) return;
    block.genes[out] = gene;
    block.values[out++] = value;
  };
  for (size_t r = 0, begin = 0; r < block.rows(); ++r) {
    const size_t end = block.begin_of(r + 1);
    const auto genes = std::span(block.genes).subspan(begin, end - begin);
    block.offsets[r] = static_cast<std::int64_t>(out);
    if (std::adjacent_find(genes.begin(), genes.end(), std::greater_equal<>()) == genes.end()) {
      for (size_t i = begin; i < end; ++i) keep(block.genes[i], block.values[i]);
    } else {
      row.clear();
      for (size_t i = begin; i < end; ++i) row.emplace_back(block.genes[i], block.values[i]);
      std::stable_sort(row.begin(), row.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
      for (size_t i = 0; i < row.size();) {
        const std::int32_t gene = row[i].first;
        float sum = row[i].second;
        while (++i < row.size() && row[i].first == gene) sum += row[i].second;
        keep(gene, sum);
      }
    }
    begin = end;
  }
  block.offsets.back() = static_cast<std::int64_t>(out);
  block.genes.resize(out);
  block.values.resize(out);
}

std::unique_ptr<CellMatrix> open_csr(const Hdf5& group, SparseShape shape) { return std::make_unique<CsrMatrix>(group, shape); }

bool is_csc(const Hdf5& group) { return encoding_of(group) == "csc_matrix" || group.text_or("h5sparse_format", "") == "csc"; }

SparseShape sparse_shape(const Hdf5& group) {
  const std::vector<std::int64_t> shape = group.integers(group.has_attribute("shape") ? "shape" : "h5sparse_shape");
  constexpr std::int64_t limit = std::numeric_limits<std::int32_t>::max();
  if (shape.size() != 2 || shape[0] < 0 || shape[1] < 0 || std::max(shape[0], shape[1]) > limit)
    throw DataError(fmt::format("{}: attribute 'shape' is not that of a matrix; the file is damaged", group.where()));
  return {static_cast<std::uint64_t>(shape[0]), static_cast<std::uint64_t>(shape[1])};
}

std::unique_ptr<CellMatrix> open_matrix(const Hdf5& object) {
  if (object.is_dataset()) {
    if (object.is_null()) throw DataError(fmt::format("{}: holds no matrix (None)", object.where()));
    if (object.shape().size() != 2) throw DataError(fmt::format("{}: {} axes, wanted a matrix", object.where(), object.shape().size()));
    return std::make_unique<DenseMatrix>(object);
  }
  if (!object.has_dataset("data") || !object.has_dataset("indices") || !object.has_dataset("indptr"))
    throw DataError(
        fmt::format("{}: encoding '{}' is not a matrix this program reads (CSR, CSC or dense)", object.where(), encoding_of(object)));
  const SparseShape shape = sparse_shape(object);
  if (is_csc(object)) return std::make_unique<CscMatrix>(object, shape);
  return std::make_unique<CsrMatrix>(object, shape);
}

}  // namespace lc
