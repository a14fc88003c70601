#include "train/exits.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "engine/atomic_file.h"

namespace lc {

namespace fs = std::filesystem;

void record_exit(const fs::path& run, const RankExit& exit) noexcept try {
  if (!fs::exists(run / "config.resolved.toml")) return;
  fs::create_directories(run / "exits");
  const nlohmann::ordered_json json{{"rank", exit.rank}, {"code", exit.code}, {"reason", exit.reason}};
  write_file(run / "exits" / fmt::format("rank-{}.json", exit.rank), json.dump(2) + "\n");
} catch (...) {  // the error that brought us here is the one to be told
}

void forget_exits(const fs::path& run) {
  std::error_code ignored;
  fs::remove_all(run / "exits", ignored);
}

}  // namespace lc
