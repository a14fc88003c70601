// What fibers.cpp offers grid.cpp: threads for a block, and running them.
#pragma once

namespace shim {

void new_block();              // of this OS thread, and gone with it
void want_threads(int count);  // at least so many fibers, and their warps
void run_threads();            // until all have returned or Block::error says why not
void abandon_threads();        // after an error: all fibers start afresh

}  // namespace shim
