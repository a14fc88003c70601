#include "train/stop.h"

#include <atomic>
#include <csignal>
#include <iterator>

namespace lc {
namespace {

std::atomic<int> asked_by = 0;
constexpr int kSignals[] = {SIGINT, SIGTERM, SIGUSR1};
struct sigaction before[std::size(kSignals)] = {};
stack_t stack_before = {};
alignas(16) char stack_of_signals[std::size_t{1} << 16];

void remember(int number) { asked_by = number; }

}  // namespace

// A signal is written to the stack of the thread it finds, which is this one where it may be. oneDNN's product for AVX-512 (2.6.3) keeps
// another address in the stack's register for a while, and the heap lay there: so signals have a stack of their own.
StopRequest::StopRequest() {
  asked_by = 0;
  const stack_t own{.ss_sp = stack_of_signals, .ss_flags = 0, .ss_size = sizeof stack_of_signals};
  ::sigaltstack(&own, &stack_before);
  struct sigaction action {};
  action.sa_handler = remember;
  action.sa_flags = SA_ONSTACK | SA_RESTART | static_cast<int>(SA_RESETHAND);  // the second one ends the process
  for (std::size_t i = 0; i < std::size(kSignals); ++i) ::sigaction(kSignals[i], &action, &before[i]);
}

StopRequest::~StopRequest() {
  for (std::size_t i = 0; i < std::size(kSignals); ++i) ::sigaction(kSignals[i], &before[i], nullptr);
  ::sigaltstack(&stack_before, nullptr);
}

bool StopRequest::asked() { return asked_by != 0; }
const char* StopRequest::signal_name() {
  return asked_by == SIGINT ? "SIGINT" : asked_by == SIGTERM ? "SIGTERM" : asked_by == SIGUSR1 ? "SIGUSR1" : "another rank";
}

}  // namespace lc
