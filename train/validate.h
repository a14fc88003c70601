// What the model does on cells set aside: losses without dropout, whether the right text is the most similar, zero-shot accuracy.
#pragma once
#include "train/log.h"
#include "train/step.h"

namespace lc {

struct ValidationSetup {
  Samples cells;  // held out
  std::int64_t batch_size = 256;
  std::int64_t most_cells = 1024;  // evenly taken from all of them, for time
};

// Collective; all ranks get the same figures. Recall is over all groups of the corpus; accuracy matches at most the 32 most similar ones.
ValidationRecord validate(LangCell& model, const Dataset& data, Communicator& ranks, const StepRule& rule, const ValidationSetup& setup);

}  // namespace lc
