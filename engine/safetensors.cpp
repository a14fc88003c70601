#include "engine/safetensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_set>

#include "engine/atomic_file.h"
#include "engine/errors.h"

namespace lc {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

constexpr std::uint64_t kLongestHeader = 100'000'000;  // of the reference implementation
constexpr size_t kMostTensors = 100'000, kLongestName = 512, kHighestRank = 8;

std::optional<StoredType> type_named(std::string_view name) {
  for (auto type = StoredType::boolean; type <= StoredType::u64; type = static_cast<StoredType>(static_cast<int>(type) + 1)) {
    if (name == name_of(type)) return type;
  }
  return std::nullopt;
}

bool is_control(char c) { return static_cast<unsigned char>(c) < 32 || c == 127; }

// A name from a file, fit for one line of an error.
std::string shown(std::string_view name) {
  std::string text(name.substr(0, 80));
  std::replace_if(text.begin(), text.end(), is_control, '?');
  return name.size() > 80 ? text + "…" : text;
}

[[noreturn]] void refuse(const std::filesystem::path& path, std::string_view tensor, std::string_view found) {
  throw ModelError(fmt::format("{}{}{}: {}; the file is damaged or not in the safetensors format: fetch or write it again", path.string(),
                               tensor.empty() ? "" : ":", shown(tensor), found));
}

// {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, …, "__metadata__": {"key": "value"}}, nothing else.
// An event parser, because a document would silently keep one of two equal keys.
class HeaderParser {
 public:
  HeaderParser(const std::filesystem::path& path, std::uint64_t data_bytes) : path_(path), data_bytes_(data_bytes) {}

  std::vector<StoredTensor> tensors;
  StoredMetadata metadata;

  bool start_object(std::size_t) {
    if (depth_ == 0) return ++depth_, true;
    if (depth_ != 1) unexpected("an object");
    fields_.clear();
    offsets_.clear();
    tensor_ = {};
    tensor_.name = name_;
    return ++depth_, true;
  }
  bool end_object() {
    if (--depth_ == 1 && !in_metadata_) finish_tensor();
    return true;
  }
  bool key(std::string& key) {
    if (depth_ == 1) {
      if (!names_.insert(key).second) refuse(path_, key, "the name occurs twice");
      if (names_.size() > kMostTensors) refuse(path_, "", fmt::format("more than {} tensors", kMostTensors));
      name_ = key;
      in_metadata_ = key == "__metadata__";
      if (!in_metadata_) check_name();
    } else {
      field_ = key;
      if (!fields_.insert(key).second) refuse(path_, name_, fmt::format("the field '{}' occurs twice", shown(key)));
      if (!in_metadata_ && key != "dtype" && key != "shape" && key != "data_offsets")
        refuse(path_, name_, fmt::format("unknown field '{}'", shown(key)));
    }
    return true;
  }
  bool string(std::string& value) {
    if (depth_ != 2 || (!in_metadata_ && field_ != "dtype")) unexpected("a string");
    if (in_metadata_) return metadata[field_] = value, true;
    const auto type = type_named(value);
    if (!type) refuse(path_, name_, fmt::format("unknown dtype '{}'", shown(value)));
    tensor_.type = *type;
    return true;
  }
  bool start_array(std::size_t) {
    if (depth_ != 2 || in_metadata_ || field_ == "dtype") unexpected("an array");
    return ++depth_, true;
  }
  bool end_array() { return --depth_, true; }
  bool number_unsigned(std::uint64_t value) {
    if (depth_ != 3) unexpected("a number");
    if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) unexpected(fmt::format("the number {}", value));
    if (field_ == "shape") {
      tensor_.shape.push_back(static_cast<std::int64_t>(value));
      if (tensor_.shape.size() > kHighestRank) refuse(path_, name_, fmt::format("more than {} dimensions", kHighestRank));
    } else {
      offsets_.push_back(value);
      if (offsets_.size() > 2) refuse(path_, name_, "more than two data_offsets");
    }
    return true;
  }
  bool number_integer(std::int64_t value) { unexpected(fmt::format("the number {}", value)); }
  bool number_float(double, const std::string& text) { unexpected(fmt::format("the number {}", shown(text))); }
  bool null() { unexpected("null"); }
  bool boolean(bool) { unexpected("true or false"); }
  bool binary(std::vector<std::uint8_t>&) { unexpected("binary data"); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception&) {
    refuse(path_, "", fmt::format("the header is no valid JSON at its byte {}", position));
  }

 private:
  [[noreturn]] void unexpected(std::string_view what) const {
    if (depth_ == 0) refuse(path_, "", fmt::format("the header is {} where an object was expected", what));
    refuse(path_, name_,
           fmt::format("{} where it does not belong{}", what,
                       depth_ > 1 && !field_.empty() ? fmt::format(" (field '{}')", shown(field_)) : ""));
  }
  void check_name() const {
    if (name_.empty()) refuse(path_, "", "a tensor has no name");
    if (name_.size() > kLongestName) refuse(path_, name_, fmt::format("the name is longer than {} bytes", kLongestName));
    if (std::any_of(name_.begin(), name_.end(), is_control)) refuse(path_, name_, "the name holds a control character");
    if (name_.find("../") != std::string::npos) refuse(path_, name_, "the name climbs out of a folder");
  }
  void finish_tensor() {
    for (const char* field : {"dtype", "shape", "data_offsets"}) {
      if (!fields_.contains(field)) refuse(path_, name_, fmt::format("the field '{}' is missing", field));
    }
    if (offsets_.size() != 2) refuse(path_, name_, fmt::format("wanted two data_offsets, found {}", offsets_.size()));
    if (offsets_[0] > offsets_[1]) refuse(path_, name_, fmt::format("data_offsets {} run backwards", fmt::format("{}", offsets_)));
    if (offsets_[1] > data_bytes_) {
      refuse(path_, name_, fmt::format("ends at byte {} of the data, but the file holds {} (cut off?)", offsets_[1], data_bytes_));
    }
    tensor_.begin = offsets_[0];
    tensor_.bytes = offsets_[1] - offsets_[0];
    const auto wanted = bytes_of(tensor_.type, tensor_.shape);
    if (!wanted) refuse(path_, name_, fmt::format("the shape {} is too large to be true", tensor_.shape));
    if (*wanted != tensor_.bytes) {
      refuse(path_, name_,
             fmt::format("{} {} needs {} bytes, data_offsets give {}", name_of(tensor_.type), tensor_.shape, *wanted, tensor_.bytes));
    }
    tensors.push_back(std::move(tensor_));
  }

  const std::filesystem::path& path_;
  std::uint64_t data_bytes_;
  int depth_ = 0;  // 1: names, 2: fields, 3: inside an array
  bool in_metadata_ = false;
  std::string name_, field_;
  std::unordered_set<std::string> names_, fields_;
  std::vector<std::uint64_t> offsets_;
  StoredTensor tensor_;
};

// Every byte of the data belongs to exactly one tensor.
void check_layout(const std::filesystem::path& path, const std::vector<StoredTensor>& tensors, std::uint64_t data_bytes) {
  std::vector<const StoredTensor*> by_place;
  for (const StoredTensor& tensor : tensors) by_place.push_back(&tensor);
  std::sort(by_place.begin(), by_place.end(),
            [](const auto* a, const auto* b) { return std::pair(a->begin, a->bytes) < std::pair(b->begin, b->bytes); });
  std::uint64_t end = 0;
  for (const StoredTensor* tensor : by_place) {
    if (tensor->begin < end)
      refuse(path, tensor->name, fmt::format("overlaps the tensor before it (begins at byte {}, wanted {})", tensor->begin, end));
    if (tensor->begin > end) refuse(path, tensor->name, fmt::format("a gap of {} bytes lies before it", tensor->begin - end));
    end += tensor->bytes;
  }
  if (end != data_bytes) refuse(path, "", fmt::format("{} bytes at the end belong to no tensor", data_bytes - end));
}

}  // namespace

SafetensorsReader::SafetensorsReader(std::filesystem::path file) : file_(std::move(file)) {
  const std::uint64_t file_bytes = file_.bytes();
  std::uint64_t header_bytes = 0;
  if (file_bytes < 8) refuse(path(), "", fmt::format("it has {} bytes, too few for a header", file_bytes));
  if (!file_.read(0, std::as_writable_bytes(std::span(&header_bytes, 1)))) refuse(path(), "", "it ends in its header");
  if (header_bytes > kLongestHeader)
    refuse(path(), "", fmt::format("a header of {} bytes, at most {} are allowed", header_bytes, kLongestHeader));
  if (header_bytes > file_bytes - 8)
    refuse(path(), "", fmt::format("a header of {} bytes in a file of {} (cut off?)", header_bytes, file_bytes));
  std::string header(header_bytes, '\0');
  if (!file_.read(8, std::as_writable_bytes(std::span(header)))) refuse(path(), "", "it ends in its header");
  if (header.empty() || header.front() != '{') refuse(path(), "", "the header does not begin with '{'");
  data_begin_ = 8 + header_bytes;
  HeaderParser parser(path(), file_bytes - data_begin_);
  nlohmann::json::sax_parse(header, &parser);
  tensors_ = std::move(parser.tensors);
  metadata_ = std::move(parser.metadata);
  check_layout(path(), tensors_, file_bytes - data_begin_);
  std::sort(tensors_.begin(), tensors_.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
}

const StoredTensor* SafetensorsReader::find(std::string_view name) const {
  const auto place =
      std::lower_bound(tensors_.begin(), tensors_.end(), name, [](const StoredTensor& t, std::string_view n) { return t.name < n; });
  return place != tensors_.end() && place->name == name ? &*place : nullptr;
}

const StoredTensor& SafetensorsReader::at(std::string_view name) const {
  if (const StoredTensor* tensor = find(name)) return *tensor;
  throw ModelError(fmt::format("{}:{}: there is no such tensor among the {} of the file; is it the right file?", path().string(), name,
                               tensors_.size()));
}

const StoredTensor& SafetensorsReader::of_type(std::string_view name, StoredType wanted) const {
  const StoredTensor& tensor = at(name);
  if (tensor.type == wanted) return tensor;
  throw ModelError(
      fmt::format("{}:{}: wanted {}, found {}; convert the file", path().string(), name, name_of(wanted), name_of(tensor.type)));
}

void SafetensorsReader::read_at(const StoredTensor& tensor, std::uint64_t offset, std::span<std::byte> out) const {
  if (!file_.read(data_begin_ + tensor.begin + offset, out)) refuse(path(), tensor.name, "the file became shorter while it was read");
}

void SafetensorsReader::read_raw(std::string_view name, std::span<std::byte> out) const {
  const StoredTensor& tensor = at(name);
  if (out.size() != tensor.bytes) {
    throw ModelError(fmt::format("{}:{}: wanted {} bytes, found {} {}; is it the right file?", path().string(), name, out.size(),
                                 name_of(tensor.type), tensor.shape));
  }
  read_at(tensor, 0, out);
}

void SafetensorsReader::read(std::string_view name, std::span<float> out) const {
  const StoredTensor& tensor = at(name);
  if (!is_weight(tensor.type)) of_type(name, StoredType::f32);
  if (out.size() != tensor.elements()) {
    throw ModelError(
        fmt::format("{}:{}: wanted {} numbers, found shape {}; is it the right file?", path().string(), name, out.size(), tensor.shape));
  }
  if (!read_floats(file_, data_begin_ + tensor.begin, tensor.type, out))
    refuse(path(), tensor.name, "the file became shorter while it was read");
}

void write_safetensors(const std::filesystem::path& path, std::vector<TensorToStore> tensors, const StoredMetadata& metadata) {
  std::sort(tensors.begin(), tensors.end(),
            [](const auto& a, const auto& b) { return a.type != b.type ? a.type > b.type : a.name < b.name; });
  const auto quoted = [](const std::string& text) { return nlohmann::json(text).dump(); };
  std::string header = "{";
  if (!metadata.empty()) {
    header += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) header += fmt::format("{}:{},", quoted(key), quoted(value));
    header.back() = '}';
    header += ',';
  }
  std::unordered_set<std::string_view> names;
  std::uint64_t end = 0;
  for (const TensorToStore& tensor : tensors) {
    if (!names.insert(tensor.name).second) throw ShapeError(fmt::format("safetensors: two tensors are called {}", tensor.name));
    if (bytes_of(tensor.type, tensor.shape) != tensor.data.size()) {
      throw ShapeError(
          fmt::format("safetensors: {} has {} bytes for {} {}", tensor.name, tensor.data.size(), name_of(tensor.type), tensor.shape));
    }
    header += fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}},", quoted(tensor.name), name_of(tensor.type),
                          fmt::join(tensor.shape, ","), end, end + tensor.data.size());
    end += tensor.data.size();
  }
  if (header.size() > 1) header.pop_back();
  header += '}';
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const std::uint64_t header_bytes = header.size();
  AtomicFile file(path);
  file.write(&header_bytes, sizeof header_bytes);
  file.write(header);
  for (const TensorToStore& tensor : tensors) file.write(tensor.data.data(), tensor.data.size());
  file.commit();
}

}  // namespace lc
