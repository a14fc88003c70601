#include "train/stop.h"

#include <atomic>
#include <csignal>
#include <iterator>

namespace lc {
namespace {

std::atomic<int> asked_by = 0;
constexpr int kSignals[] = {SIGINT, SIGTERM, SIGUSR1};
void (*before[std::size(kSignals)])(int) = {};

void remember(int number) {
  asked_by = number;
  std::signal(number, SIG_DFL);
}

}  // namespace

StopRequest::StopRequest() {
  asked_by = 0;
  for (std::size_t i = 0; i < std::size(kSignals); ++i) before[i] = std::signal(kSignals[i], remember);
}

StopRequest::~StopRequest() {
  for (std::size_t i = 0; i < std::size(kSignals); ++i) std::signal(kSignals[i], before[i]);
}

bool StopRequest::asked() { return asked_by != 0; }
const char* StopRequest::signal_name() {
  return asked_by == SIGINT ? "SIGINT" : asked_by == SIGTERM ? "SIGTERM" : asked_by == SIGUSR1 ? "SIGUSR1" : "another rank";
}

}  // namespace lc
