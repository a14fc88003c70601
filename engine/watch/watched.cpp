#include <exception>

#include "engine/watch/watch.h"

namespace lc {
namespace {

// What throws stays open: that is where this rank stood.
template <class Call>
auto watched(Watch& watch, const char* name, std::size_t bytes, Call&& call) {
  const std::int64_t number = watch.begin(name, bytes);
  if constexpr (std::is_void_v<decltype(call())>) {
    call();
    watch.end(number);
  } else {
    auto result = call();
    watch.end(number);
    return result;
  }
}

}  // namespace

Watched::Watched(std::unique_ptr<Communicator> inner, WatchSetup setup)
    : inner_(std::move(inner)), watch_(std::make_unique<Watch>(*inner_, std::move(setup))) {}

// The end waits for all ranks, so it is watched too.
Watched::~Watched() {
  if (std::uncaught_exceptions() > 0) return;
  watched(*watch_, "end", 0, [&] { watch_->close(), inner_.reset(); });
  watch_.reset();
}

void Watched::all_reduce_sum(std::span<float> values) {
  watched(*watch_, "all_reduce_sum", values.size_bytes(), [&] { inner_->all_reduce_sum(values); });
}
void Watched::all_reduce_sum(std::span<double> values) {
  watched(*watch_, "all_reduce_sum", values.size_bytes(), [&] { inner_->all_reduce_sum(values); });
}
std::vector<float> Watched::all_gather_rows(std::span<const float> rows, std::int64_t columns) {
  return watched(*watch_, "all_gather_rows", rows.size_bytes(), [&] { return inner_->all_gather_rows(rows, columns); });
}
std::vector<std::int64_t> Watched::all_gather_rows(std::span<const std::int64_t> values) {
  return watched(*watch_, "all_gather_rows", values.size_bytes(), [&] { return inner_->all_gather_rows(values); });
}
void Watched::broadcast(std::span<std::byte> bytes, int from) {
  watched(*watch_, "broadcast", bytes.size(), [&] { inner_->broadcast(bytes, from); });
}
void Watched::barrier() {
  watched(*watch_, "barrier", 0, [&] { inner_->barrier(); });
}

}  // namespace lc
