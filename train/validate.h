// What the model does on cells set aside: losses without dropout, whether the right text is the most similar, zero-shot accuracy.
#pragma once
#include "train/log.h"
#include "train/step.h"

namespace lc {

struct ValidationSetup {
  Samples cells;  // held out
  std::int64_t batch_size = 256;
  std::int64_t most_cells = 1024;  // the first ones in their order, for time
};

// Losses are those of all ranks; recall and accuracy are computed on rank 0 and absent on the others.
ValidationRecord validate(LangCell& model, const Dataset& data, Communicator& ranks, const StepRule& rule, const ValidationSetup& setup);

}  // namespace lc
