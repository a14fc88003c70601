// main of every test program: it may be started once more to read files (engine/hdf5/server.h).
#include <gtest/gtest.h>

#include "engine/hdf5/server.h"

int main(int argc, char** argv) {
  if (const std::optional<int> code = lc::serve_files(argc, argv)) return *code;
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
