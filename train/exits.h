// Why each rank of a run ended: RUN/exits/rank-N.json, for whoever finds the job gone.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "engine/watch/watch.h"

namespace lc {

struct RankExit {
  int rank = 0, code = 0;  // code: as the process exits with
  std::string reason;
  std::vector<Collective> collectives{};  // the last ones of this rank
};

// Does nothing where there is no run yet, and reports nothing: it is called on the way out of an error.
void record_exit(const std::filesystem::path& run, const RankExit& exit) noexcept;

void forget_exits(const std::filesystem::path& run);  // of an earlier start

}  // namespace lc
