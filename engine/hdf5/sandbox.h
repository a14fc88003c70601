// Limits that a process puts on itself before it reads what strangers wrote.
#pragma once

namespace lc::h5 {

// From here on: no file can be opened, no program started, no connection made; memory is bounded. Nothing of it under sanitizers, which
// need more than that.
void enter_sandbox(int socket);

// Whether this process could still have half of the memory that a reader may take: where it could not, what failed for want of memory
// failed because of this machine and its limits, else because of the file.
bool memory_suffices();
constexpr const char* kFreeMemory = "free memory or raise its limit (ulimit -v)";

}  // namespace lc::h5
