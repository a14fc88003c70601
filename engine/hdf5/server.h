// The process that reads files: libhdf5 runs nowhere else. It is this program started once more (engine/hdf5/reader_process.h), can reach
// only descriptors it is handed, and may die of a damaged file without anything being lost.
#pragma once
#include <optional>

namespace lc {

// First line of every main(): when this process was started to read files, serves until the other side closes and returns the exit code.
std::optional<int> serve_files(int argc, char** argv);

}  // namespace lc
