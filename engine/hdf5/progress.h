// Signs of life of the process that reads files, in memory it shares with the one that waits for it; and what the system refused it.
#pragma once
#include <atomic>
#include <cstdint>
#include <string>

namespace lc::h5 {

using Progress = std::atomic<std::uint64_t>;  // bytes moved so far

void begin_request(std::uint64_t budget);  // bytes that answering one request may move
bool progress(std::uint64_t bytes);        // false: more than any whole file would need

// A call of the system on a file that failed. The library may say nothing of it: a chunk that could not be written when its dataset was
// closed is lost without a word, an object that could not be looked up is said not to be there.
struct Fault {
  enum class What { none, read, write } what = What::none;
  std::string path, reason;
};
void note(const Fault& fault);  // the first one is kept
Fault take_fault();             // and forgets it

}  // namespace lc::h5
