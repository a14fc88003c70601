#include "train/stop.h"

#include <atomic>
#include <csignal>

namespace lc {
namespace {

std::atomic<int> asked_by = 0;
void (*before[2])(int) = {};

void remember(int number) {
  asked_by = number;
  std::signal(number, SIG_DFL);
}

}  // namespace

StopRequest::StopRequest() {
  asked_by = 0;
  before[0] = std::signal(SIGINT, remember);
  before[1] = std::signal(SIGTERM, remember);
}

StopRequest::~StopRequest() {
  std::signal(SIGINT, before[0]);
  std::signal(SIGTERM, before[1]);
}

bool StopRequest::asked() { return asked_by != 0; }
const char* StopRequest::signal_name() { return asked_by == SIGINT ? "SIGINT" : "SIGTERM"; }

}  // namespace lc
