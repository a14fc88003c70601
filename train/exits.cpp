#include "train/exits.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "engine/atomic_file.h"

namespace lc {

namespace fs = std::filesystem;

// As 2026-11-27T12:00:00.123Z.
static std::string utc(std::chrono::system_clock::time_point time) {
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch()).count();
  return fmt::format("{:%FT%T}.{:03}Z", fmt::gmtime(static_cast<std::time_t>(ms / 1000)), ms % 1000);
}

void record_exit(const fs::path& run, const RankExit& exit) noexcept try {
  if (!fs::exists(run / "config.resolved.toml")) return;
  fs::create_directories(run / "exits");
  nlohmann::ordered_json json{{"rank", exit.rank}, {"code", exit.code}, {"reason", exit.reason}};
  for (const Collective& c : exit.collectives) {
    json["collectives"].push_back({{"number", c.number}, {"name", c.name}, {"bytes", c.bytes}, {"begun", utc(c.begun)}});
    json["collectives"].back()["ended"] = c.ended ? nlohmann::ordered_json(utc(*c.ended)) : nlohmann::ordered_json();
  }
  write_file(run / "exits" / fmt::format("rank-{}.json", exit.rank), json.dump(2) + "\n");
} catch (...) {  // the error that brought us here is the one to be told
}

void forget_exits(const fs::path& run) {
  std::error_code ignored;
  fs::remove_all(run / "exits", ignored);
}

}  // namespace lc
