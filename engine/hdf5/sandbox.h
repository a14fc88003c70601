// Limits that a process puts on itself before it reads what strangers wrote.
#pragma once

namespace lc::h5 {

// From here on: no file can be opened, no program started, no connection made; memory is bounded. Nothing of it under sanitizers, which
// need more than that.
void enter_sandbox(int socket);

}  // namespace lc::h5
