// Each method is a question to the reader of files; plain numbers are read in hdf5_numbers.cpp.
#include "engine/hdf5.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "engine/errors.h"
#include "engine/hdf5/remote.h"

namespace lc {

using h5::Verb;
using h5::Wire;

namespace {

constexpr std::uint64_t kRowsOfStrings = 65536;

[[noreturn]] void cannot_open(const std::filesystem::path& path, const std::string& why) {
  throw DataError(fmt::format("{}: {}", path.string(), why));
}

}  // namespace

// ---- files ------------------------------------------------------------------------------------------------------------------

Hdf5::File::~File() {
  if (descriptor >= 0) ::close(descriptor);
}

Hdf5::Remote::~Remote() { reader->forget(number); }

Hdf5::Hdf5(std::shared_ptr<File> file, std::shared_ptr<Remote> remote, std::string path)
    : file_(std::move(file)), remote_(std::move(remote)), path_(std::move(path)) {}

Hdf5 Hdf5::from_file(std::shared_ptr<File> file) {
  file->reader = h5::ReaderProcess::get();
  Wire question, answer;
  question.put(Verb::open), question.put(file->path), question.put(file->how);
  answer = file->reader->ask(question, file->path, file->descriptor);
  const auto number = answer.get<std::uint32_t>();
  auto root = std::make_shared<Remote>(file->reader, number, answer.get<bool>());
  return Hdf5(std::move(file), std::move(root), "");
}

Hdf5 Hdf5::open(const std::filesystem::path& path) {
  auto file = std::make_shared<File>(path.string(), H5Open::read);
  file->open_existing(O_RDONLY);
  return from_file(std::move(file));
}

Hdf5 Hdf5::edit(const std::filesystem::path& path) {
  auto file = std::make_shared<File>(path.string(), H5Open::edit);
  file->open_existing(O_RDWR);
  return from_file(std::move(file));
}

Hdf5 Hdf5::create(const std::filesystem::path& path) {
  auto file = std::make_shared<File>(path.string(), H5Open::create);
  file->descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file->descriptor < 0)
    throw ResourceError(fmt::format("{}: cannot be created: {}; check free space and permissions", path.string(), std::strerror(errno)));
  return from_file(std::move(file));
}

void Hdf5::File::open_existing(int flags) {
  descriptor = ::open(path.c_str(), flags | O_CLOEXEC | O_NONBLOCK);  // a pipe would wait for its other end
  struct stat status {};
  if (descriptor < 0)
    cannot_open(path, errno == ENOENT ? "no such file" : errno == EISDIR ? "a folder, wanted an HDF5 file" : std::strerror(errno));
  if (fstat(descriptor, &status) != 0) cannot_open(path, std::strerror(errno));
  if (S_ISDIR(status.st_mode)) cannot_open(path, "a folder, wanted an HDF5 file");
  if (!S_ISREG(status.st_mode)) cannot_open(path, "not a regular file, wanted an HDF5 file");
  if (status.st_size == 0) cannot_open(path, "the file is empty; copy or download it again");
  size = status.st_size, modified = status.st_mtim;
}

void Hdf5::require_unchanged() const {
  struct stat status {};
  if (file_->how != H5Open::read || fstat(file_->descriptor, &status) != 0) return;
  if (status.st_size != file_->size || status.st_mtim.tv_sec != file_->modified.tv_sec || status.st_mtim.tv_nsec != file_->modified.tv_nsec)
    throw DataError(fmt::format("{}: the file changed while it was read; run the command again when nobody writes to it", file_->path));
}

void Hdf5::close() { ask<void>(Verb::close); }

// ---- questions --------------------------------------------------------------------------------------------------------------

template <class... A>
Hdf5 Hdf5::ask_object(Verb verb, std::string_view path, const A&... arguments) const {
  Wire question;
  question.put(verb), question.put(remote_->number);
  (question.put(arguments), ...);
  Wire answer = remote_->reader->ask(question, where(path));
  const auto number = answer.get<std::uint32_t>();
  auto object = std::make_shared<Remote>(remote_->reader, number, answer.get<bool>());
  return Hdf5(file_, std::move(object), path.empty() ? answer.get<std::string>() : join(path));
}

// ---- objects ----------------------------------------------------------------------------------------------------------------

std::string Hdf5::join(std::string_view path) const { return path.empty() ? path_ : path_ + "/" + std::string(path); }

std::string Hdf5::where(std::string_view path) const {
  const std::string object = join(path);
  return object.empty() ? file_->path : file_->path + ":" + object;
}

std::string Hdf5::name() const { return path_.substr(path_.rfind('/') + 1); }
bool Hdf5::has(std::string_view path) const { return ask<bool>(Verb::has, path); }
bool Hdf5::has_group(std::string_view path) const { return has(path) && at(path).is_group(); }
bool Hdf5::has_dataset(std::string_view path) const { return has(path) && at(path).is_dataset(); }
bool Hdf5::is_group() const { return ask<bool>(Verb::is_group); }
bool Hdf5::is_dataset() const { return remote_->dataset; }
Hdf5 Hdf5::at(std::string_view path) const { return ask_object(Verb::at, path, path); }
std::vector<std::string> Hdf5::children() const { return ask<std::vector<std::string>>(Verb::children); }
Hdf5 Hdf5::group(std::string_view path) const { return path.empty() ? *this : ask_object(Verb::group, path, path); }
void Hdf5::remove(std::string_view path) const { ask<void>(Verb::remove, path); }
void Hdf5::copy_from(const Hdf5& source, std::string_view path) const { ask<void>(Verb::copy_from, source.remote_->number, path); }

// ---- attributes -------------------------------------------------------------------------------------------------------------

bool Hdf5::has_attribute(std::string_view attribute) const { return ask<bool>(Verb::has_attribute, attribute); }
std::vector<std::string> Hdf5::attributes() const { return ask<std::vector<std::string>>(Verb::attributes); }
std::string Hdf5::text(std::string_view attribute) const { return ask<std::string>(Verb::text, attribute); }
std::string Hdf5::text_or(std::string_view attribute, std::string_view otherwise) const {
  return ask<std::string>(Verb::text_or, attribute, otherwise);
}
std::vector<std::string> Hdf5::texts(std::string_view attribute) const { return ask<std::vector<std::string>>(Verb::texts, attribute); }
std::int64_t Hdf5::integer(std::string_view attribute) const { return ask<std::int64_t>(Verb::integer, attribute); }
std::vector<std::int64_t> Hdf5::integers(std::string_view attribute) const {
  return ask<std::vector<std::int64_t>>(Verb::integers, attribute);
}
Hdf5 Hdf5::referenced(std::string_view attribute) const { return ask_object(Verb::referenced, {}, attribute); }
void Hdf5::set(std::string_view attribute, std::string_view text) const { ask<void>(Verb::set_text, attribute, text); }
void Hdf5::set(std::string_view attribute, std::int64_t value) const { ask<void>(Verb::set_integer, attribute, value); }
void Hdf5::set(std::string_view attribute, double value) const { ask<void>(Verb::set_double, attribute, value); }
void Hdf5::set(std::string_view attribute, H5Bool value) const { ask<void>(Verb::set_bool, attribute, value); }
void Hdf5::set(std::string_view attribute, const std::vector<std::string>& texts) const { ask<void>(Verb::set_texts, attribute, texts); }
void Hdf5::set(std::string_view attribute, const std::vector<std::int64_t>& values) const {
  ask<void>(Verb::set_integers, attribute, values);
}
void Hdf5::set_reference(std::string_view attribute, const Hdf5& target) const {
  ask<void>(Verb::set_reference, attribute, target.remote_->number);
}
void Hdf5::copy_attributes(const Hdf5& source) const { ask<void>(Verb::copy_attributes, source.remote_->number); }

// ---- datasets ---------------------------------------------------------------------------------------------------------------

H5Kind Hdf5::kind() const { return facts().kind; }
size_t Hdf5::item_bytes() const { return static_cast<size_t>(ask<std::uint64_t>(Verb::item_bytes)); }
Hdf5::Shape Hdf5::shape() const { return facts().shape; }
bool Hdf5::is_null() const { return is_dataset() && ask<bool>(Verb::is_null); }
std::optional<std::uint64_t> Hdf5::contiguous_offset() const { return ask<std::optional<std::uint64_t>>(Verb::contiguous_offset); }

std::uint64_t Hdf5::rows() const {
  const Shape extent = facts().shape;
  return extent.empty() ? 1 : extent[0];
}

// Of a file that is only read, nothing changes.
H5Facts Hdf5::facts() const {
  if (file_->how != H5Open::read) {
    auto now = ask<H5Facts>(Verb::facts);
    now.layout = {};  // bytes may be on their way to the file
    return now;
  }
  const std::lock_guard lock(remote_->mutex);
  if (!remote_->facts) remote_->facts = ask<H5Facts>(Verb::facts);
  return *remote_->facts;
}

std::vector<std::string> Hdf5::read_strings(std::uint64_t begin, std::uint64_t end) const {
  if (is_dataset()) require_plausible(facts());
  std::vector<std::string> out;
  for (std::uint64_t from = begin; from < end; from += kRowsOfStrings) {
    auto part = ask<std::vector<std::string>>(Verb::read_strings, from, std::min(from + kRowsOfStrings, end));
    if (out.empty())
      out = std::move(part);
    else
      std::move(part.begin(), part.end(), std::back_inserter(out));
  }
  return out;
}

std::vector<std::string> Hdf5::read_strings() const { return read_strings(0, is_null() ? 0 : rows()); }

// ---- writing ----------------------------------------------------------------------------------------------------------------

Hdf5 Hdf5::allocate_items(H5Item item, std::string_view path, const Shape& shape, const H5Storage& storage) const {
  return ask_object(Verb::allocate, path, item, path, shape, storage);
}

Hdf5 Hdf5::allocate_like(const Hdf5& source, std::string_view path, std::uint64_t rows) const {
  return ask_object(Verb::allocate_like, path, source.remote_->number, path, rows);
}

namespace {

// Whole rows of about kBytesAtOnce: f(values before, those values).
template <class F>
void in_parts(H5Item item, const H5Shape& shape, std::span<const std::byte> values, F f) {
  const std::uint64_t row = std::max<std::uint64_t>(row_items(shape), 1) * bytes_of(item);
  const std::uint64_t at_once = std::max<std::uint64_t>(kBytesAtOnce / row, 1) * row;
  for (std::uint64_t from = 0; from < values.size(); from += at_once)
    f(from / row, values.subspan(from, std::min(at_once, values.size() - from)));
}

}  // namespace

void Hdf5::write_items(H5Item item, std::uint64_t begin, const void* values, size_t count) const {
  const auto bytes = std::span(static_cast<const std::byte*>(values), count * bytes_of(item));
  if (bytes.empty()) return ask<void>(Verb::write, item, begin, bytes);  // says when there is no such row
  in_parts(item, shape(), bytes, [&](std::uint64_t row, auto part) { ask<void>(Verb::write, item, begin + row, part); });
}

void Hdf5::append_items(H5Item item, const void* values, size_t count) const {
  in_parts(item, shape(), std::span(static_cast<const std::byte*>(values), count * bytes_of(item)),
           [&](std::uint64_t, auto part) { ask<void>(Verb::append, item, part); });
}

void Hdf5::append_strings(std::span<const std::string> values) const {
  for (size_t from = 0; from < values.size(); from += kRowsOfStrings)
    ask<void>(Verb::append_strings, values.subspan(from, std::min<size_t>(kRowsOfStrings, values.size() - from)));
}

Hdf5 Hdf5::write_strings(std::string_view path, std::span<const std::string> values, const H5Storage& storage) const {
  const Hdf5 dataset = ask_object(Verb::allocate_strings, path, path, static_cast<std::uint64_t>(values.size()), storage);
  for (size_t from = 0; from < values.size(); from += kRowsOfStrings)
    dataset.ask<void>(Verb::write_strings, static_cast<std::uint64_t>(from),
                      values.subspan(from, std::min<size_t>(kRowsOfStrings, values.size() - from)));
  return dataset;
}

Hdf5 Hdf5::write_string(std::string_view path, std::string_view value) const { return ask_object(Verb::write_string, path, path, value); }

void Hdf5::copy_rows(const Hdf5& source, std::span<const H5Range> ranges, std::uint64_t begin) const {
  ask<void>(Verb::copy_rows, source.remote_->number, std::vector<H5Range>(ranges.begin(), ranges.end()), begin);
}

}  // namespace lc
