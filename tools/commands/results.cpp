#include "tools/commands/results.h"

#include <fmt/format.h>
#include <unistd.h>
#include <zlib.h>

#include <cerrno>
#include <cmath>
#include <functional>
#include <utility>
#include <vector>

#include "engine/atomic_file.h"
#include "engine/errors.h"
#include "engine/zip_writer.h"
#include "tools/anndata/writer.h"

namespace lc {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kRowsAtOnce = 2048;

class AnnDataResults final : public Results {
 public:
  AnnDataResults(AnnDataWriter writer, std::uint64_t cells) : writer_(std::move(writer)), cells_(cells) {}
  void obs(std::string_view name, const Categorical& values) override { writer_.obs(name, values); }
  void obs(std::string_view name, std::span<const float> values) override { writer_.obs(name, values); }
  void obs(std::string_view name, std::span<const H5Bool> values) override { writer_.obs(name, values); }
  void obsm(std::string_view name, std::uint64_t width, const Rows& rows) override {
    const Hdf5 matrix = writer_.obsm(name, width);
    std::vector<float> some;
    for (std::uint64_t begin = 0; begin < cells_; begin += kRowsAtOnce) {
      const std::uint64_t end = std::min(begin + kRowsAtOnce, cells_);
      some.resize((end - begin) * width);
      rows(begin, end, some.data());
      matrix.write_rows<float>(begin, some);
    }
  }
  void uns(std::string_view name, const nlohmann::ordered_json& value) override { writer_.uns(name, value); }
  void commit() override { writer_.commit(); }

 private:
  AnnDataWriter writer_;
  std::uint64_t cells_;
};

AnnDataWriter new_anndata(const ResultsSetup& setup, const CountMatrix& counts) {
  AnnDataWriter writer =
      AnnDataWriter::fresh({counts.cells().names(), counts.gene_ids(), {{"gene_name", counts.gene_names()}}}, setup.out, setup.existing);
  counts.for_each_block(kRowsAtOnce, [&](const CsrBlock& block) { writer.append_x(block); });
  return writer;
}

// A column as text, cell by cell.
using Column = std::function<std::string(size_t cell)>;

class TsvResults final : public Results {
 public:
  TsvResults(const ResultsSetup& setup, std::vector<std::string> cells)
      : gzip_(setup.out.extension() == ".gz"), file_(setup.out, setup.existing), cells_(std::move(cells)) {}
  void obs(std::string_view name, const Categorical& values) override {
    add(name, [values](size_t i) { return values.label(i); });
  }
  void obs(std::string_view name, std::span<const float> values) override {
    add(name, [v = std::vector<float>(values.begin(), values.end())](size_t i) { return std::isnan(v[i]) ? "" : fmt::format("{}", v[i]); });
  }
  void obs(std::string_view name, std::span<const H5Bool> values) override {
    add(name, [v = std::vector<H5Bool>(values.begin(), values.end())](size_t i) { return v[i] == H5Bool::yes ? "True" : "False"; });
  }
  void obsm(std::string_view, std::uint64_t, const Rows&) override {}
  void uns(std::string_view, const nlohmann::ordered_json&) override {}
  void commit() override {
    std::string line = "cell";
    for (const std::string& name : names_) line += '\t' + name;
    put(line + '\n');
    for (size_t i = 0; i < cells_.size(); ++i) {
      line = plain(cells_[i]);
      for (const Column& column : columns_) line += '\t' + plain(column(i));
      put(line + '\n');
    }
    flush(Z_FINISH);
    file_.commit();
  }

 private:
  struct Deflate {
    z_stream stream{};
    Deflate() { deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY); }
    ~Deflate() { deflateEnd(&stream); }
  };
  void add(std::string_view name, Column column) { names_.emplace_back(name), columns_.push_back(std::move(column)); }
  static std::string plain(std::string text) {  // a tab or a line's end would be another column or cell
    for (char& c : text)
      if (c == '\t' || c == '\n' || c == '\r') c = ' ';
    return text;
  }
  void put(const std::string& text) {
    waiting_ += text;
    if (waiting_.size() > (size_t{1} << 20)) flush(Z_NO_FLUSH);
  }
  void flush(int mode) {
    if (!gzip_) {
      file_.write(waiting_);
      waiting_.clear();
      return;
    }
    z_stream& z = deflate_.stream;
    z.next_in = reinterpret_cast<Bytef*>(waiting_.data()), z.avail_in = static_cast<unsigned>(waiting_.size());
    std::string out(size_t{1} << 16, '\0');
    int state = Z_OK;
    do {
      z.next_out = reinterpret_cast<Bytef*>(out.data()), z.avail_out = static_cast<unsigned>(out.size());
      state = deflate(&z, mode);
      file_.write(out.data(), out.size() - z.avail_out);
    } while (z.avail_in > 0 || (mode == Z_FINISH && state != Z_STREAM_END));
    waiting_.clear();
  }

  bool gzip_;
  AtomicFile file_;
  std::vector<std::string> cells_, names_;
  std::vector<Column> columns_;
  std::string waiting_;
  Deflate deflate_;
};

// The .npy form, version 1 (numpy.lib.format).
std::string npy(std::string_view type, const std::vector<std::uint64_t>& shape, std::string_view bytes) {
  std::string header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({},), }}", type, fmt::join(shape, ", "));
  while ((10 + header.size() + 1) % 64 != 0) header += ' ';
  header += '\n';
  std::string out("\x93NUMPY\x01\x00", 8);
  out += static_cast<char>(header.size() & 0xff), out += static_cast<char>(header.size() >> 8);
  return out.append(header).append(bytes);
}
std::string npy(std::span<const float> values, const std::vector<std::uint64_t>& shape) {
  return npy("<f4", shape, {reinterpret_cast<const char*>(values.data()), values.size_bytes()});
}
std::u32string code_points(std::string_view text) {  // of UTF-8; a byte that is none stands for itself
  std::u32string out;
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const size_t length = lead < 0xc0 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    char32_t c = length == 1 ? lead : lead & (0xffu >> (length + 1));
    for (size_t k = 1; k < length && i + k < text.size(); ++k) c = c << 6 | (static_cast<unsigned char>(text[i + k]) & 0x3fu);
    out += c, i += length;
  }
  return out;
}
std::string npy(const std::vector<std::string>& texts) {  // of fixed width, UCS-4
  std::vector<std::u32string> all;
  size_t width = 1;
  for (const std::string& text : texts) all.push_back(code_points(text)), width = std::max(width, all.back().size());
  std::u32string bytes;
  for (std::u32string& text : all) text.resize(width, U'\0'), bytes += text;
  return npy(fmt::format("<U{}", width), {texts.size()}, {reinterpret_cast<const char*>(bytes.data()), 4 * bytes.size()});
}

class NpzResults final : public Results {
 public:
  NpzResults(const ResultsSetup& setup, const std::vector<std::string>& cells)
      : zip_(setup.out, setup.existing), prefix_(setup.prefix), cells_(cells.size()) {
    zip_.add("obs_names.npy", npy(cells));
  }
  void obs(std::string_view name, const Categorical& values) override {
    std::vector<std::string> labels;
    for (size_t i = 0; i < cells_; ++i) labels.push_back(values.label(i));
    add(name, npy(labels));
  }
  void obs(std::string_view name, std::span<const float> values) override { add(name, npy(values, {cells_})); }
  void obs(std::string_view name, std::span<const H5Bool> values) override {
    add(name, npy("|b1", {cells_}, {reinterpret_cast<const char*>(values.data()), values.size()}));
  }
  void obsm(std::string_view name, std::uint64_t width, const Rows& rows) override {
    std::vector<float> all(cells_ * width);
    rows(0, cells_, all.data());
    add(name, npy(all, {cells_, width}));
  }
  void uns(std::string_view, const nlohmann::ordered_json& value) override { add("about", npy(std::vector<std::string>{value.dump()})); }
  void commit() override { zip_.commit(); }

 private:
  void add(std::string_view name, const std::string& array) {
    std::string own(name);
    if (own.starts_with("X_" + prefix_))
      own.erase(1, 1 + prefix_.size());  // X_P_cls is X_cls
    else if (own.starts_with(prefix_ + "_"))
      own.erase(0, prefix_.size() + 1);
    zip_.add(own + ".npy", array);
  }
  ZipWriter zip_;
  std::string prefix_;
  size_t cells_;
};

enum class Form { h5ad, tsv, npz };
Form form_of(const fs::path& out) {
  const std::string name = out.filename().string();
  if (name.ends_with(".h5ad")) return Form::h5ad;
  if (name.ends_with(".tsv") || name.ends_with(".tsv.gz")) return Form::tsv;
  if (name.ends_with(".npz")) return Form::npz;
  throw UsageError(fmt::format("--out: wanted a name ending in .h5ad, .tsv, .tsv.gz or .npz, got '{}'", out.string()));
}

}  // namespace

bool is_table(const fs::path& out) { return form_of(out) == Form::tsv; }

bool perhaps_finished(const ResultsSetup& setup) {
  return setup.existing == Existing::refuse && fs::is_regular_file(setup.out) && fs::is_directory(setup.out.string() + ".partial");
}

ResultsSetup where_to_write(const ResultsSetup& setup) {
  ResultsSetup where = setup;
  if (perhaps_finished(setup))
    where.out = fs::path(setup.out.string() + ".partial") / setup.out.filename(), where.existing = Existing::replace;
  return where;
}

void require_finished(const fs::path& written, const ResultsSetup& setup) {
  if (written == setup.out) return;
  const bool equal = sha256_of_file(written) == sha256_of_file(setup.out);
  fs::remove(written);
  if (!equal) refuse_existing(setup.out);
}

void refuse_existing(const fs::path& out) {
  throw UsageError(fmt::format("{}: exists already; choose another --out or add --overwrite", out.string()));
}

void require_results_can_be_written(const ResultsSetup& setup, std::span<const std::string> keys) {
  const Form form = form_of(setup.out);
  refuse_same_file(setup.input, setup.out);
  const fs::path beside = setup.out.has_parent_path() ? setup.out.parent_path() : fs::path(".");
  if (!fs::is_directory(beside)) throw_file_error("create", setup.out, fs::exists(beside) ? ENOTDIR : ENOENT);
  if (::access(beside.c_str(), W_OK) != 0) throw_file_error("write", setup.out, errno);
  if (setup.existing == Existing::replace) return;
  if (fs::exists(setup.out) && !perhaps_finished(setup)) refuse_existing(setup.out);
  if (form != Form::h5ad || is_tenx(setup.input)) return;
  if (const auto there = keys_present(setup.input, keys); !there.empty())
    throw UsageError(
        fmt::format("{}: has {} already; choose another --prefix or add --overwrite", setup.input.string(), fmt::join(there, ", ")));
}

std::unique_ptr<Results> open_results(const ResultsSetup& setup, const CountMatrix& counts) {
  switch (form_of(setup.out)) {
    case Form::tsv:
      return std::make_unique<TsvResults>(setup, counts.cells().names());
    case Form::npz:
      return std::make_unique<NpzResults>(setup, counts.cells().names());
    case Form::h5ad:
      break;
  }
  return std::make_unique<AnnDataResults>(
      counts.from_anndata() ? AnnDataWriter::copy_of(setup.input, setup.out, setup.existing) : new_anndata(setup, counts),
      counts.n_cells());
}

}  // namespace lc
