#include "tools/anndata/writer.h"

#include <fmt/format.h>

#include "engine/errors.h"
#include "tools/anndata/elements.h"

namespace lc {

namespace fs = std::filesystem;

AnnDataWriter::AnnDataWriter(std::unique_ptr<AtomicFile> output, Hdf5 file, Existing existing)
    : output_(std::move(output)), file_(std::move(file)), existing_(existing), cells_(obs_frame().rows()) {}

AnnDataWriter AnnDataWriter::copy_of(const fs::path& input, const fs::path& output, Existing existing) {
  const Hdf5 original = Hdf5::open(input);
  [[maybe_unused]] const Frame readable(original.at("obs"));  // an input that cannot be read is said before anything is copied
  refuse_same_file(input, output);
  auto file = std::make_unique<AtomicFile>(output, existing);
  const fs::path& partial = file->partial_path();
  std::error_code error;
  const fs::perms permissions = fs::status(partial, error).permissions();
  fs::copy_file(input, partial, fs::copy_options::overwrite_existing, error);
  if (error) {
    std::error_code ignored;
    const bool full = fs::space(partial, ignored).available < fs::file_size(input, ignored);  // copy_file calls that an input/output error
    throw ResourceError(fmt::format("{}: cannot be copied to {}: {}; check free space and permissions", input.string(), output.string(),
                                    full ? "no space left on device" : error.message()));
  }
  fs::permissions(partial, permissions, error);  // the copy took over those of the input, which may be read-only
  original.require_unchanged();
  Hdf5 copy = Hdf5::edit(partial);
  return AnnDataWriter(std::move(file), std::move(copy), existing);
}

AnnDataWriter AnnDataWriter::fresh(const NewAnnData& content, const fs::path& output, Existing existing) {
  auto file = std::make_unique<AtomicFile>(output, existing);
  Hdf5 root = Hdf5::create(file->partial_path());
  mark(root, "anndata");
  write_frame(root, "obs", content.cells);
  const Hdf5 var = write_frame(root, "var", content.genes);
  std::vector<std::string> columns;
  for (const auto& [name, values] : content.gene_columns) {
    if (values.size() != content.genes.size())
      throw ShapeError(fmt::format("anndata: var/{}: wanted {} entries, got {}", name, content.genes.size(), values.size()));
    write_string_array(var, name, values);
    columns.push_back(name);
  }
  var.set("column-order", columns);
  for (const char* dict : {"layers", "obsm", "obsp", "uns", "varm", "varp"}) write_dict(root, dict);
  const Hdf5 x = root.group("X");
  mark(x, "csr_matrix");
  x.set("shape",
        std::vector<std::int64_t>{static_cast<std::int64_t>(content.cells.size()), static_cast<std::int64_t>(content.genes.size())});
  const H5Storage storage{.gzip = 4, .grows = true};
  x.allocate<float>("data", {0}, storage);
  x.allocate<std::int32_t>("indices", {0}, storage);
  AnnDataWriter writer(std::move(file), std::move(root), existing);
  writer.x_offsets_.push_back(0);
  return writer;
}

void AnnDataWriter::make_room(const Hdf5& group, std::string_view name) const {
  if (name.empty() || name.find('/') != std::string_view::npos)
    throw UsageError(fmt::format("'{}' cannot be the name of a result: it is empty or contains '/'", name));
  if (!group.has(name)) return;
  if (existing_ == Existing::refuse)
    throw UsageError(fmt::format("{}/{} is in the input already; choose another --prefix or --overwrite it", group.name(), name));
  group.remove(name);
}

template <class F>
void AnnDataWriter::obs_column(std::string_view name, size_t entries, F write) {
  const Frame frame = obs_frame();
  if (entries != cells_) throw ShapeError(fmt::format("anndata: obs/{}: wanted {} entries, got {}", name, cells_, entries));
  if (name == frame.index_name() || name == "__categories")
    throw UsageError(fmt::format("'{}' cannot be a column of obs: the index has that name", name));
  make_room(frame.group(), name);
  // Legacy files keep the categories of a column apart; the table keeps its encoding version, so that readers still look there for the
  // others.
  frame.group().remove(fmt::format("__categories/{}", name));
  write(frame.group());
  add_to_column_order(frame.group(), frame.columns(), name);
}

void AnnDataWriter::obs(std::string_view name, const Categorical& values) {
  obs_column(name, values.codes.size(), [&](const Hdf5& group) { write_categorical(group, name, values); });
}

void AnnDataWriter::obs(std::string_view name, std::span<const float> values) {
  obs_column(name, values.size(), [&](const Hdf5& group) { write_array<float>(group, name, values, {cells_}); });
}

void AnnDataWriter::obs(std::string_view name, std::span<const std::string> values) {
  obs_column(name, values.size(), [&](const Hdf5& group) { write_string_array(group, name, values); });
}

void AnnDataWriter::obs(std::string_view name, std::span<const H5Bool> values) {
  obs_column(name, values.size(), [&](const Hdf5& group) { write_array<H5Bool>(group, name, values, {cells_}); });
}

Hdf5 AnnDataWriter::obsm(std::string_view name, std::uint64_t width) {
  const Hdf5 group = write_dict(file_, "obsm");
  make_room(group, name);
  Hdf5 dataset = group.allocate<float>(name, {cells_, width});
  mark(dataset, "array");
  return dataset;
}

void AnnDataWriter::obsm(std::string_view name, std::span<const float> values, std::uint64_t width) {
  obsm(name, width).write_rows<float>(0, values);
}

void AnnDataWriter::uns(std::string_view name, const nlohmann::ordered_json& value) {
  const Hdf5 group = write_dict(file_, "uns");
  make_room(group, name);
  write_json(group, name, value);
}

void AnnDataWriter::append_x(const CsrBlock& cells) {
  const Hdf5 x = file_.at("X");
  x.at("data").append_rows<float>(cells.values);
  x.at("indices").append_rows<std::int32_t>(cells.genes);
  const std::int64_t before = x_offsets_.back();
  for (size_t row = 1; row <= cells.rows(); ++row) x_offsets_.push_back(before + cells.offsets[row]);
}

void AnnDataWriter::commit() {
  if (!x_offsets_.empty()) {
    if (x_offsets_.size() != cells_ + 1) throw ShapeError(fmt::format("anndata: X: wanted {} rows, got {}", cells_, x_offsets_.size() - 1));
    file_.at("X").write<std::int64_t>("indptr", x_offsets_, H5Storage{.gzip = 4});
  }
  file_.close();
  output_->commit();
}

std::vector<std::string> keys_present(const fs::path& file, std::span<const std::string> keys) {
  const Hdf5 root = Hdf5::open(file);
  std::vector<std::string> found;
  for (const std::string& key : keys)
    if (root.has(key)) found.push_back(key);
  return found;
}

void refuse_same_file(const fs::path& input, const fs::path& output) {
  std::error_code error;
  if (fs::exists(output, error) && fs::equivalent(input, output, error))
    throw UsageError(fmt::format("{}: the output is the input, which is never changed; choose another --out", output.string()));
}

}  // namespace lc
