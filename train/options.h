// The configuration of a run: every key with its default. Reading, writing, comparing and "did you mean" all walk one table of
// keys in options.cpp.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "engine/ops.h"

namespace lc {

struct ModelOptions {
  std::string preset = "langcell";
  std::string init;        // a model folder to continue from
  std::string cell_model;  // a folder with a Geneformer to start the cell tower from
  std::string text_model;  // a folder with a Hugging Face BERT to start the text tower from
  std::string text_vocab;  // empty: that of init or text_model, else built from the corpus's texts
};

struct DataOptions {
  std::vector<std::string> corpus{"corpus.h5"};
  std::int64_t max_cell_tokens = 2048, max_text_tokens = 512;
  double holdout = 0;                // share of cells (or groups) set aside
  std::string holdout_by;            // a column of the corpus: a group is never divided
  std::string sampling = "uniform";  // or sqrt_type: a cell's chance falls with the root of the size of its type
  double field_dropout = 0;          // of the fields of a text from a template, the cell type excepted
};

struct TrainOptions {
  std::int64_t seed = 0;
  std::string device = "auto", precision = "auto";
  std::int64_t threads = 0;                       // 0: all cores
  std::int64_t batch_size = 256, accumulate = 1;  // samples of one optimiser step over all ranks; micro-batches of each rank
  bool recompute = false;
  std::int64_t log_every = 10;
  bool tensorboard = true;  // event files beside train.jsonl
};

enum class RelatedTypes : std::uint8_t { negative, ignore };  // cells whose types are equal, or one a kind of the other
enum class Decay : std::uint8_t { linear, cosine, constant };

struct Objectives {  // weights; 0 switches off
  double mgm = 1, cell_cell = 1, cell_text = 0, matching = 0;
};

struct StageOptions {
  std::int64_t steps = 1000;  // 0: the stage is skipped
  double epochs = 0;          // above 0: instead of steps
  double lr = 1e-4;
  double warmup = 0.05;  // below 1: a share of the stage, else steps
  Decay decay = Decay::linear;
  double weight_decay = 1e-3, clip = 1.0, temperature = 0.05, mask_rate = 0.15;
  bool share_pass = false;
  Objectives objectives;
  std::vector<std::string> freeze;              // globs over tensor names
  SamePairs same_text = SamePairs::positive;    // stage 2
  RelatedTypes related = RelatedTypes::ignore;  // stage 2
  bool runs() const { return steps > 0 || epochs > 0; }
};

struct ValidateOptions {
  std::int64_t every = 500;  // 0: never
};

struct CheckpointOptions {
  std::int64_t every = 500, keep = 3;  // every 0: only at the end of a stage and on request
};

struct RanksOptions {
  double silence_s = 30, timeout_s = 1800;  // no sign of life, or waited for in a collective, for so long: the run ends; 0: never
};

struct Options {
  ModelOptions model;
  DataOptions data;
  TrainOptions train;
  StageOptions stage1, stage2;
  ValidateOptions validate;
  CheckpointOptions checkpoint;
  RanksOptions ranks;
  Options();
  const StageOptions& stage(int number) const { return number == 1 ? stage1 : stage2; }
};

// TOML text and `a.b=value` overrides (value parsed as TOML, else a string) over the defaults. UsageError naming the key: unknown (with the
// nearest known one), of another type, out of range, or at odds with another. `where` names the text in messages.
Options parse_options(const std::string& toml, const std::vector<std::string>& overrides, const std::string& where = "config");
Options read_options(const std::filesystem::path& file, const std::vector<std::string>& overrides);  // UsageError (2) also when unreadable

std::string to_toml(const Options& options);  // every key; starts the same run again

// UsageError naming the first key that differs and must not: a resumed run may change steps (or epochs), every, keep, log_every, device,
// threads, silence_s, timeout_s.
void require_resumable(const Options& before, const Options& now);

}  // namespace lc
