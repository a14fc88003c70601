// The stream of a thread: what waits in it.
#include <deque>
#include <utility>

#include "tests/shim/shim.h"

namespace shim {
namespace {

struct Asked {
  std::function<void()> work;
  std::shared_ptr<std::atomic<bool>> done;
};
thread_local std::deque<Asked> stream;

}  // namespace

void ask_of_stream(std::function<void()>&& work) {
  stream.push_back({std::move(work), std::make_shared<std::atomic<bool>>(false)});
  stream_waits = true;
}

std::shared_ptr<std::atomic<bool>> last_asked() { return stream.empty() ? nullptr : stream.back().done; }

void run_stream() {
  stream_waits = false;
  while (!stream.empty()) {
    stream.front().work();
    *stream.front().done = true;
    stream.pop_front();
  }
}

}  // namespace shim
