// Streams: what waits in them, and for what.
#include <algorithm>
#include <utility>

#include "tests/shim/shim.h"

namespace shim {
namespace {

void run_first(Stream& stream) {
  const Asked first = std::move(stream.asked.front());
  stream.asked.pop_front();
  first.work();
  *first.done = true;
}

}  // namespace

const StreamPtr& own_stream() {
  thread_local const StreamPtr stream = std::make_shared<Stream>();
  return stream;
}

void ask_of_stream(const StreamPtr& stream, std::function<void()>&& work) {
  stream->asked.push_back({std::move(work), std::make_shared<std::atomic<bool>>(false)});
  if (stream == own_stream()) ++own_work, stream_waits = true;
}

bool knows_all(const StreamPtr& stream) { return stream == own_stream() || stream->knows == own_work; }

void record(Event& event, const StreamPtr& stream) {
  event.of = stream, event.before = stream->asked.empty() ? nullptr : stream->asked.back().done;
  event.knows = stream == own_stream() ? own_work : stream->knows;
}

void let_wait(const StreamPtr& stream, const Event& event) {
  stream->knows = std::max(stream->knows, event.knows);
  if (!event.before || *event.before) return;
  ask_of_stream(stream, [of = event.of, before = event.before] {
    while (!*before) run_first(*of);
  });
}

void run_stream() {
  stream_waits = false;
  while (!own_stream()->asked.empty()) run_first(*own_stream());
}

}  // namespace shim
