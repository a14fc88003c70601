// The last resort where memory ends: libraries that do not look at what they are given (oneDNN's code generator, an exception thrown while
// another is handled) crash or abort then.
#pragma once

namespace lc {

// From here on a SIGSEGV or SIGABRT of a process that cannot have 64 MiB more ends it with 5 and one line; any other stays what it is.
void explain_crashes_without_memory();

}  // namespace lc
