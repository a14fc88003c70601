// Signs of life of the process that reads files, in memory it shares with the one that waits for it.
#pragma once
#include <atomic>
#include <cstdint>

namespace lc::h5 {

using Progress = std::atomic<std::uint64_t>;  // bytes moved so far

void begin_request(std::uint64_t budget);  // bytes that answering one request may move
bool progress(std::uint64_t bytes);        // false: more than any whole file would need

}  // namespace lc::h5
