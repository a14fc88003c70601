#include "tools/anndata/subset.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "engine/errors.h"
#include "engine/hdf5.h"
#include "tools/anndata/frame.h"
#include "tools/anndata/matrix.h"
#include "tools/anndata/writer.h"

namespace lc {

namespace {

constexpr std::int64_t kEntriesAtOnce = std::int64_t{1} << 22;  // entries of a sparse matrix held at once

// The chosen rows, as the pieces need them.
struct ChosenRows {
  explicit ChosenRows(std::span<const std::uint64_t> rows_, std::uint64_t all) : rows(rows_), new_row(all, -1) {
    for (size_t i = 0; i < rows.size(); ++i) {
      if (rows[i] >= all || (i > 0 && rows[i] <= rows[i - 1])) throw ShapeError(fmt::format("subset: wanted ascending rows below {}", all));
      new_row[rows[i]] = static_cast<std::int64_t>(i);
      if (!ranges.empty() && ranges.back().end == rows[i])
        ++ranges.back().end;
      else
        ranges.push_back({rows[i], rows[i] + 1});
    }
  }
  std::span<const std::uint64_t> rows;
  std::vector<std::int64_t> new_row;  // per old row; −1: left out
  std::vector<H5Range> ranges;        // neighbouring rows together
};

enum class Columns { all, chosen };  // chosen: a cells × cells matrix

class Subset {
 public:
  Subset(const Hdf5& in, const Hdf5& out, std::span<const std::uint64_t> rows)
      : in_(in), out_(out), chosen_(rows, Frame(in.at("obs")).rows()) {}

  std::vector<std::string> write() {
    out_.copy_attributes(in_);
    for (const std::string& name : in_.children()) {
      if (name == "X")
        element(name, Columns::all);
      else if (name == "obs")
        frame(name);
      else if (name == "layers" || name == "obsm")
        members(name, Columns::all);
      else if (name == "obsp")
        members(name, Columns::chosen);
      else if (name == "raw" && in_.has_group(name))
        raw();
      else
        out_.copy_from(in_.at(name), name);
    }
    return std::move(left_out_);
  }

 private:
  void members(const std::string& path, Columns columns) {
    if (!in_.has_group(path)) return out_.copy_from(in_.at(path), path);
    const Hdf5 group = in_.at(path);
    out_.group(path).copy_attributes(group);
    for (const std::string& name : group.children()) element(path + "/" + name, columns);
  }

  void raw() {
    const Hdf5 group = in_.at("raw");
    out_.group("raw").copy_attributes(group);
    for (const std::string& name : group.children()) {
      if (name == "X")
        element("raw/X", Columns::all);
      else
        out_.copy_from(group.at(name), "raw/" + name);
    }
  }

  void element(const std::string& path, Columns columns) {
    const Hdf5 source = in_.at(path);
    if (source.is_dataset()) {
      if (source.is_null() || source.shape().empty())
        out_.copy_from(source, path);
      else if (columns == Columns::chosen)
        square(source, path);
      else
        rows_of(source, path);
    } else if (source.has_dataset("indptr")) {
      const bool by_cell = !is_csc(source);  // a cells × cells matrix is cut along both axes, whichever comes first
      if (columns == Columns::chosen)
        sparse(source, path, Major::cut, Minor::cut);
      else if (by_cell)
        sparse(source, path, Major::cut, Minor::keep);
      else
        sparse(source, path, Major::keep, Minor::cut);
    } else if (source.has_attribute("_index")) {
      frame(path);
    } else {
      left_out_.push_back(fmt::format("{} is left out: encoding '{}' cannot be cut to some cells", source.where(), encoding_of(source)));
    }
  }

  // ---- one-dimensional things ---------------------------------------------------------------------------------------------

  void rows_of(const Hdf5& source, const std::string& path) {
    if (source.rows() != chosen_.new_row.size())
      throw DataError(
          fmt::format("{}: {} rows, wanted {} as in obs; the file is damaged", source.where(), source.rows(), chosen_.new_row.size()));
    const Hdf5 cut = out_.allocate_like(source, path, chosen_.rows.size());
    cut.copy_attributes(source);
    cut.copy_rows(source, chosen_.ranges, 0);
  }

  void frame(const std::string& path) {
    const Hdf5 source = in_.at(path);
    [[maybe_unused]] const Frame readable(source);
    const Hdf5 cut = out_.group(path);
    cut.copy_attributes(source);
    if (source.has("__categories")) cut.copy_from(source.at("__categories"), "__categories");
    for (const std::string& name : source.children())
      if (name != "__categories") column(source.at(name), path + "/" + name);
  }

  void column(const Hdf5& source, const std::string& path) {
    if (source.is_dataset()) {
      rows_of(source, path);
      if (source.has_attribute("categories")) {
        const std::string categories = "__categories/" + source.referenced("categories").name();
        out_.at(path).set_reference("categories", out_.at(path.substr(0, path.rfind('/'))).at(categories));
      }
      return;
    }
    out_.group(path).copy_attributes(source);
    for (const std::string& part : source.children()) {  // codes or values and mask follow the rows, categories do not
      if (part == "codes" || part == "values" || part == "mask")
        rows_of(source.at(part), path + "/" + part);
      else
        out_.copy_from(source.at(part), path + "/" + part);
    }
  }

  // ---- matrices -------------------------------------------------------------------------------------------------------------

  void square(const Hdf5& source, const std::string& path) {
    const size_t all = chosen_.new_row.size();
    if (source.shape() != Hdf5::Shape{all, all})
      throw DataError(fmt::format("{}: wanted cells × cells; the file is damaged", source.where()));
    const Hdf5 cut = source.kind() == H5Kind::floating && source.item_bytes() <= 4
                         ? out_.allocate<float>(path, {chosen_.rows.size(), chosen_.rows.size()})
                         : out_.allocate<double>(path, {chosen_.rows.size(), chosen_.rows.size()});
    cut.copy_attributes(source);
    std::vector<double> kept(chosen_.rows.size());
    for (size_t row = 0; row < chosen_.rows.size(); ++row) {
      const std::vector<double> old = source.read_rows<double>(chosen_.rows[row], chosen_.rows[row] + 1);
      std::transform(chosen_.rows.begin(), chosen_.rows.end(), kept.begin(), [&](std::uint64_t column) { return old[column]; });
      cut.write_rows<double>(row, kept);
    }
  }

  enum class Major { keep, cut };
  enum class Minor { keep, cut };

  void sparse(const Hdf5& source, const std::string& path, Major major, Minor minor) {
    const SparseShape old = sparse_shape(source);
    const std::uint64_t cells = chosen_.rows.size();
    const Hdf5 cut = out_.group(path);
    cut.copy_attributes(source);
    cut.set(source.has_attribute("shape") ? "shape" : "h5sparse_shape",
            std::vector<std::int64_t>{static_cast<std::int64_t>(cells),
                                      static_cast<std::int64_t>(major == Major::cut && minor == Minor::cut ? cells : old.columns)});
    const std::vector<std::int64_t> pointers = source.at("indptr").read<std::int64_t>();
    const bool sound = pointers.size() == (major == Major::cut ? chosen_.new_row.size() : old.columns) + 1 && pointers.front() == 0 &&
                       std::is_sorted(pointers.begin(), pointers.end()) &&
                       static_cast<std::uint64_t>(pointers.back()) <= source.at("indices").rows();
    if (!sound)
      throw DataError(fmt::format("{}/indptr: not a rising list of {} entries; the file is damaged", source.where(), pointers.size()));
    std::vector<H5Range> majors = major == Major::cut ? chosen_.ranges : std::vector<H5Range>{{0, pointers.size() - 1}};
    const std::vector<std::int64_t> kept =
        minor == Minor::cut ? filtered(source, cut, pointers, majors) : whole(source, cut, pointers, majors);
    const Hdf5 indptr = cut.allocate_like(source.at("indptr"), "indptr", kept.size());
    indptr.copy_attributes(source.at("indptr"));
    indptr.write_rows<std::int64_t>(0, kept);
  }

  // Rows along the major axis are runs of entries; returns the new indptr.
  std::vector<std::int64_t> whole(const Hdf5& source, const Hdf5& cut, const std::vector<std::int64_t>& pointers,
                                  const std::vector<H5Range>& majors) {
    std::vector<std::int64_t> kept{0};
    std::vector<H5Range> entries;
    for (const H5Range& range : majors) {
      entries.push_back({static_cast<std::uint64_t>(pointers[range.begin]), static_cast<std::uint64_t>(pointers[range.end])});
      for (std::uint64_t row = range.begin; row < range.end; ++row) kept.push_back(kept.back() + pointers[row + 1] - pointers[row]);
    }
    for (const char* part : {"data", "indices"}) {
      const Hdf5 values = cut.allocate_like(source.at(part), part, static_cast<std::uint64_t>(kept.back()));
      values.copy_attributes(source.at(part));
      values.copy_rows(source.at(part), entries, 0);
    }
    return kept;
  }

  // The entries of the chosen cells along the minor axis, slice by slice; counted first, so that the datasets have their size.
  std::vector<std::int64_t> filtered(const Hdf5& source, const Hdf5& cut, const std::vector<std::int64_t>& pointers,
                                     const std::vector<H5Range>& majors) {
    const Hdf5 old_indices = source.at("indices"), old_data = source.at("data");
    std::vector<std::int64_t> kept{0};
    for_each_slice(pointers, majors, [&](std::uint64_t first, std::uint64_t last) {
      const auto from = static_cast<std::uint64_t>(pointers[first]);
      const std::vector<std::int64_t> minor = minors(old_indices, from, static_cast<std::uint64_t>(pointers[last]));
      for (std::uint64_t row = first; row < last; ++row) {
        const auto begin = minor.begin() + (pointers[row] - pointers[first]), end = minor.begin() + (pointers[row + 1] - pointers[first]);
        kept.push_back(kept.back() + std::count_if(begin, end, [](std::int64_t index) { return index >= 0; }));
      }
    });
    const Hdf5 indices = cut.allocate_like(old_indices, "indices", static_cast<std::uint64_t>(kept.back()));
    const Hdf5 data = cut.allocate_like(old_data, "data", static_cast<std::uint64_t>(kept.back()));
    indices.copy_attributes(old_indices);
    data.copy_attributes(old_data);
    std::uint64_t written = 0;
    for_each_slice(pointers, majors, [&](std::uint64_t first, std::uint64_t last) {
      const auto from = static_cast<std::uint64_t>(pointers[first]), to = static_cast<std::uint64_t>(pointers[last]);
      std::vector<std::int64_t> minor = minors(old_indices, from, to);
      std::vector<H5Range> entries;
      for (size_t i = 0; i < minor.size(); ++i)
        if (minor[i] >= 0) entries.push_back({from + i, from + i + 1});
      data.copy_rows(old_data, entries, written);
      std::erase_if(minor, [](std::int64_t index) { return index < 0; });
      indices.write_rows<std::int64_t>(written, minor);
      written += minor.size();
    });
    return kept;
  }

  std::vector<std::int64_t> minors(const Hdf5& indices, std::uint64_t from, std::uint64_t to) const {
    std::vector<std::int64_t> minor = indices.read_rows<std::int64_t>(from, to);
    for (std::int64_t& index : minor) {
      if (index < 0 || static_cast<size_t>(index) >= chosen_.new_row.size())
        throw DataError(
            fmt::format("{}: found {}, wanted 0 to {}; the file is damaged", indices.where(), index, chosen_.new_row.size() - 1));
      index = chosen_.new_row[static_cast<size_t>(index)];
    }
    return minor;
  }

  template <class F>
  void for_each_slice(const std::vector<std::int64_t>& pointers, const std::vector<H5Range>& majors, F f) const {
    for (const H5Range& range : majors) {
      for (std::uint64_t first = range.begin, last = first; first < range.end; first = last) {
        do ++last;
        while (last < range.end && pointers[last + 1] - pointers[first] <= kEntriesAtOnce);
        f(first, last);
      }
    }
  }

  Hdf5 in_, out_;
  ChosenRows chosen_;
  std::vector<std::string> left_out_;
};

}  // namespace

std::vector<std::string> write_cells_of(const std::filesystem::path& input, std::span<const std::uint64_t> rows,
                                        const std::filesystem::path& output, Existing existing) {
  const Hdf5 in = Hdf5::open(input);
  refuse_same_file(input, output);
  AtomicFile file(output, existing);
  Hdf5 out = Hdf5::create(file.partial_path());
  std::vector<std::string> left_out = Subset(in, out, rows).write();
  out.close();
  file.commit();
  return left_out;
}

}  // namespace lc
