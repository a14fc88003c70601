#include "train/event_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>

#include "engine/errors.h"

namespace lc {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// ---- protobuf's wire format: a field is its key (number · 8 + type) and a value

constexpr unsigned kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5;

void put_varint(std::string& to, std::uint64_t x) {
  for (; x >= 0x80; x >>= 7) to += static_cast<char>(x | 0x80);
  to += static_cast<char>(x);
}
void put_key(std::string& to, unsigned field, unsigned type) { put_varint(to, field * 8 + type); }
template <class U>
void put_little_endian(std::string& to, U bits) {
  for (std::size_t i = 0; i < sizeof(U); ++i) to += static_cast<char>(bits >> 8 * i);
}
void put_bytes(std::string& to, unsigned field, std::string_view bytes) {
  put_key(to, field, kBytes);
  put_varint(to, bytes.size());
  to += bytes;
}

// message Event { double wall_time = 1; int64 step = 2; oneof what { string file_version = 3; Summary summary = 5; } }
std::string event_head(const EventTime& time) {
  std::string event;
  put_key(event, 1, kFixed64);
  put_little_endian(event, std::bit_cast<std::uint64_t>(time.wall));
  put_key(event, 2, kVarint);
  put_varint(event, static_cast<std::uint64_t>(time.step));
  return event;
}

// message Summary { message Value { string tag = 1; float simple_value = 2; } repeated Value value = 1; }
void put_scalar(std::string& summary, std::string_view tag, double number) {
  std::string value;
  put_bytes(value, 1, tag);
  put_key(value, 2, kFixed32);
  put_little_endian(value, std::bit_cast<std::uint32_t>(static_cast<float>(number)));
  put_bytes(summary, 1, value);
}

std::int64_t whole(const Json& line, const char* key) {
  return line.contains(key) && line[key].is_number_integer() ? line[key].get<std::int64_t>() : 0;
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  static constexpr std::array<std::uint32_t, 256> table = [] {
    std::array<std::uint32_t, 256> t{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      t[i] = i;
      for (int bit = 0; bit < 8; ++bit) t[i] = t[i] >> 1 ^ (t[i] & 1 ? 0x82f63b78u : 0);
    }
    return t;
  }();
  std::uint32_t crc = ~0u;
  for (const char c : bytes) crc = crc >> 8 ^ table[(crc ^ static_cast<unsigned char>(c)) & 0xff];
  return ~crc;
}

std::string tf_record(std::string_view data) {
  const auto masked = [](std::string_view bytes) {
    const std::uint32_t crc = crc32c(bytes);
    return std::rotr(crc, 15) + 0xa282ead8u;
  };
  std::string record;
  put_little_endian(record, static_cast<std::uint64_t>(data.size()));
  put_little_endian(record, masked(record));
  record += data;
  put_little_endian(record, masked(data));
  return record;
}

std::string scalars_event(const Json& line, const EventTime& time) {
  const std::string room = line.value("event", std::string("train"));
  std::string summary;
  for (const auto& [key, value] : line.items()) {
    if (value.is_number() && key != "stage" && key != "step" && key != "time") put_scalar(summary, room + "/" + key, value.get<double>());
  }
  if (summary.empty()) return {};
  std::string event = event_head(time);
  put_bytes(event, 5, summary);
  return event;
}

EventFile::EventFile(const fs::path& folder, const fs::path& log) {
  std::error_code failed;
  fs::create_directories(folder, failed);
  for (const auto& entry : fs::directory_iterator(folder, failed)) {
    if (entry.path().filename().string().starts_with("events.out.tfevents.")) fs::remove(entry.path(), failed);
  }
  const double now = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  path_ = folder / fmt::format("events.out.tfevents.{:010.0f}.langcell", now);
  file_ = std::fopen(path_.c_str(), "wbe");
  if (!file_) refuse();
  std::string version = event_head({now, 0});
  put_bytes(version, 3, "brain.Event:2");
  const std::string record = tf_record(version);
  std::fwrite(record.data(), 1, record.size(), file_);
  std::ifstream lines(log);
  for (std::string text; std::getline(lines, text);) {
    if (const Json line = Json::parse(text, nullptr, false); line.is_object()) append(line);
  }
  flush();
}

EventFile::~EventFile() {
  if (file_) std::fclose(file_);
}

void EventFile::refuse() const {
  throw ResourceError(fmt::format("cannot write {}: {}; free some space, or set train.tensorboard = false, then resume the run",
                                  path_.string(), std::strerror(errno)));
}

void EventFile::append(const Json& line) {
  const std::int64_t step = whole(line, "step");
  if (whole(line, "stage") == 1) first_stage_steps_ = std::max(first_stage_steps_, step);
  const EventTime time{line.value("time", 0.0), whole(line, "stage") == 1 ? step : first_stage_steps_ + step};
  const std::string event = scalars_event(line, time);
  if (event.empty()) return;
  const std::string record = tf_record(event);
  if (std::fwrite(record.data(), 1, record.size(), file_) != record.size()) refuse();
}

void EventFile::flush() {
  if (std::fflush(file_) != 0) refuse();
}

void EventFile::write(const Json& line) {
  append(line);
  flush();
}

}  // namespace lc
