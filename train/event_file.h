// TensorBoard's event file: the lines of train.jsonl once more, as TFRecords of protobuf messages, so that `tensorboard --logdir RUN` shows
// a run. The log is the truth: a resumed run writes the file anew from it, so no step is there twice.
// Formats: TFRecord (length, masked CRC-32C of it, data, masked CRC-32C of it); tensorflow's event.proto and summary.proto.
#pragma once
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace lc {

std::uint32_t crc32c(std::string_view bytes);  // Castagnoli's polynomial, as iSCSI's (RFC 3720)
std::string tf_record(std::string_view data);  // one record
struct EventTime {
  double wall = 0;        // seconds since 1970
  std::int64_t step = 0;  // over all stages
};
// One event: a scalar for each number of a line of the log; empty when the line has none. Steps are counted over all stages.
std::string scalars_event(const nlohmann::ordered_json& line, const EventTime& time);

class EventFile {
 public:
  // Writes FOLDER/events.out.tfevents.… anew from the log, as far as that goes, and removes earlier ones. ResourceError: cannot be written.
  EventFile(const std::filesystem::path& folder, const std::filesystem::path& log);
  ~EventFile();
  EventFile(const EventFile&) = delete;
  EventFile& operator=(const EventFile&) = delete;
  void write(const nlohmann::ordered_json& line);  // and flushes

 private:
  void append(const nlohmann::ordered_json& line);
  void flush();
  [[noreturn]] void refuse() const;
  std::filesystem::path path_;
  std::FILE* file_ = nullptr;
  std::int64_t first_stage_steps_ = 0;  // where the second begins
};

}  // namespace lc
