#include "train/log.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>

#include "engine/atomic_file.h"
#include "engine/errors.h"

namespace lc {
namespace {

using Json = nlohmann::ordered_json;

Json number(const std::optional<double>& value) { return value ? Json(*value) : Json(); }  // NaN is written as null, too

void add_losses(Json& line, const LoggedLosses& l) {
  line["loss"] = l.loss, line["mgm"] = number(l.mgm), line["cell_cell"] = number(l.cell_cell);
  line["cell_text"] = number(l.cell_text), line["matching"] = number(l.matching);
}

Json json_of(const RankSpread::Spread& s) { return {s.least, s.mean, s.most}; }

std::string time_left(double seconds) {
  const std::int64_t s = std::llround(seconds);
  if (s >= 86400) return fmt::format("{}d {}h", s / 86400, s % 86400 / 3600);
  if (s >= 3600) return fmt::format("{}h {:02}m", s / 3600, s % 3600 / 60);
  return fmt::format("{}:{:02}", s / 60, s % 60);
}

std::size_t columns_of(std::FILE* terminal) {
  winsize size{};
  return ::ioctl(::fileno(terminal), TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col : 160;
}

}  // namespace

RankSpread spread_of(std::span<const RankTimes> ranks, double step_seconds) {
  RankSpread all;
  const auto spread = [&](auto value) {
    RankSpread::Spread s{value(ranks[0]), 0, value(ranks[0])};
    for (const RankTimes& r : ranks) {
      s.least = std::min(s.least, value(r)), s.most = std::max(s.most, value(r));
      s.mean += value(r) / static_cast<double>(ranks.size());
    }
    return s;
  };
  all.data_s = spread([](const RankTimes& r) { return r.data_s; });
  all.comm_s = spread([](const RankTimes& r) { return r.comm_s; });
  all.sums_s = spread([](const RankTimes& r) { return r.sums_s; });
  all.work_s = spread([](const RankTimes& r) { return r.work_s; });
  all.tokens_per_s = spread([&](const RankTimes& r) { return step_seconds > 0 ? r.tokens / step_seconds : 0; });
  all.imbalance = all.work_s.mean > 0 ? all.work_s.most / all.work_s.mean - 1 : 0;
  const auto slower = [](const RankTimes& a, const RankTimes& b) { return a.work_s < b.work_s; };
  all.slowest = static_cast<int>(std::max_element(ranks.begin(), ranks.end(), slower) - ranks.begin());
  return all;
}

TrainLog::TrainLog(const std::filesystem::path& path, const std::filesystem::path& events)
    : path_(path), file_(std::fopen(path.c_str(), "ae")) {
  if (!file_)
    throw ResourceError(fmt::format("cannot write {}: {}; choose a folder you may write to", path.string(), std::strerror(errno)));
  if (!events.empty()) events_ = std::make_unique<EventFile>(events, path);
}

TrainLog::~TrainLog() {
  if (file_) std::fclose(file_);
}

void TrainLog::line(Json& object) {
  const double now = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  object["time"] = std::round(now * 1e3) / 1e3;
  const bool written = std::fputs((object.dump() + "\n").c_str(), file_) >= 0 && std::fflush(file_) == 0;
  if (written && events_) events_->write(object);
  if (written) return;
  throw ResourceError(fmt::format("cannot write {}: {}; free some space, then resume the run", path_.string(), std::strerror(errno)));
}

void TrainLog::write(const StepRecord& r) {
  Json j{{"stage", r.stage}, {"step", r.step}, {"epoch", r.epoch}};
  add_losses(j, r.losses);
  j["lr"] = r.lr, j["grad_norm"] = r.grad_norm, j["samples_per_s"] = r.samples_per_s, j["tokens_per_s"] = r.tokens_per_s;
  j["data_s"] = r.data_s, j["step_s"] = r.step_s, j["skipped_negatives"] = r.skipped_negatives, j["peak_bytes"] = r.peak_bytes;
  if (r.ranks) {
    j["comm_s"] = r.ranks->comm_s.mean, j["sums_s"] = r.ranks->sums_s.mean, j["imbalance"] = r.ranks->imbalance;
    j["ranks"] = {{"data_s", json_of(r.ranks->data_s)},
                  {"work_s", json_of(r.ranks->work_s)},
                  {"comm_s", json_of(r.ranks->comm_s)},
                  {"sums_s", json_of(r.ranks->sums_s)},
                  {"tokens_per_s", json_of(r.ranks->tokens_per_s)},
                  {"slowest", r.ranks->slowest}};
  }
  line(j);
}

void TrainLog::write(const ValidationRecord& r) {
  Json j{{"event", "validate"}, {"stage", r.stage}, {"step", r.step}, {"cells", r.cells}};
  add_losses(j, r.losses);
  j["recall_at_1"] = number(r.recall_at_1), j["zero_shot_accuracy"] = number(r.zero_shot_accuracy), j["seconds"] = r.seconds;
  line(j);
}

void cut_log(const std::filesystem::path& path, int stage, std::int64_t step) {
  std::ifstream in(path);
  if (!in) return;
  AtomicFile kept(path);
  for (std::string text; std::getline(in, text);) {
    const nlohmann::json j = nlohmann::json::parse(text, nullptr, false);
    if (!j.is_object()) continue;  // cut short
    const auto at = [&](const char* key) { return j.contains(key) && j[key].is_number_integer() ? j[key].get<std::int64_t>() : 0; };
    if (std::tuple(at("stage"), at("step")) > std::tuple(std::int64_t{stage}, step)) continue;
    kept.write(text + "\n");
  }
  kept.commit();
}

Progress::Progress(std::int64_t total, std::int64_t done, Show show, std::FILE* out) : total_(total), show_(show), out_(out), done_(done) {
  if (show_ == Show::automatic) show_ = ::isatty(::fileno(out)) ? Show::in_place : Show::lines;
}

Progress::~Progress() {
  if (standing_) std::fputs("\n", out_);
}

// What matters first: a terminal may be too narrow for all of it.
std::string Progress::text(const StepRecord& r, std::int64_t done, std::int64_t total, double seconds_left) {
  std::string text = fmt::format("stage {} step {}  {}/{} ({}%)  {} left  {:.1f} cells/s  loss {:.4f}", r.stage, r.step, done, total,
                                 total > 0 ? done * 100 / total : 100, time_left(seconds_left), r.samples_per_s, r.losses.loss);
  for (const auto& [name, value] : {std::pair{"mgm", r.losses.mgm},
                                    {"cell-cell", r.losses.cell_cell},
                                    {"cell-text", r.losses.cell_text},
                                    {"matching", r.losses.matching}}) {
    if (value) text += fmt::format("  {} {:.4f}", name, *value);
  }
  return text + fmt::format("  lr {:.2e}  {:.0f} tokens/s", r.lr, r.tokens_per_s);
}

void Progress::update(const StepRecord& record, std::int64_t done) {
  constexpr std::chrono::seconds kBetweenLines{5};
  if (show_ == Show::nothing) return;
  const auto now = Clock::now();
  if (done > done_) {
    constexpr double kNews = 0.2;
    const double each = std::chrono::duration<double>(now - counted_).count() / static_cast<double>(done - done_);
    per_step_ = per_step_ == 0 ? each : (1 - kNews) * per_step_ + kNews * each;
    counted_ = now, done_ = done;
  }
  const bool first = shown_ == Clock::time_point{}, last = done >= total_;
  if (show_ == Show::lines && !first && !last && now - shown_ < kBetweenLines) return;
  shown_ = now;
  const std::string line = text(record, done, total_, per_step_ * static_cast<double>(total_ - done));
  if (show_ == Show::lines) {
    std::fputs((line + "\n").c_str(), out_);
  } else {
    std::fputs(("\r" + line.substr(0, columns_of(out_) - 1) + "\x1b[K").c_str(), out_);  // a wrapped line could not be overwritten
    standing_ = true;
  }
  std::fflush(out_);
}

void Progress::clear() {
  if (standing_) std::fputs("\r\x1b[K", out_);
  standing_ = false;
}

}  // namespace lc
