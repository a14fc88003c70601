// langcell split: the cells of one file as two, stratified by a label or by whole groups (donors).
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "engine/errors.h"
#include "engine/hdf5.h"
#include "tools/anndata/frame.h"
#include "tools/anndata/subset.h"
#include "tools/anndata/writer.h"
#include "tools/commands/command.h"
#include "tools/commands/outputs.h"
#include "tools/commands/random.h"

namespace lc {

namespace {

namespace fs = std::filesystem;

struct SplitOptions {
  Common common;
  std::string input, key, group, train, test;
  double fraction = 0.2;
  bool overwrite = false;
};

struct Split {
  std::vector<char> in_test;  // per cell
  std::vector<std::string> train_groups, test_groups;
};

// Of each label the nearest whole number of cells, but one on either side where the label has two.
Split stratified(const Categorical& labels, const SplitOptions& options) {
  std::map<std::int32_t, std::vector<size_t>> cells_of;
  for (size_t cell = 0; cell < labels.codes.size(); ++cell) cells_of[labels.codes[cell]].push_back(cell);
  Split split{std::vector<char>(labels.codes.size(), 0), {}, {}};
  for (auto& [code, cells] : cells_of) {
    Random(options.common.seed, static_cast<std::uint64_t>(code + 1)).shuffle(cells);
    auto taken = static_cast<size_t>(std::lround(options.fraction * static_cast<double>(cells.size())));
    if (cells.size() > 1) taken = std::clamp<size_t>(taken, 1, cells.size() - 1);
    for (size_t i = 0; i < taken; ++i) split.in_test[cells[i]] = 1;
  }
  return split;
}

// Groups in random order go to the test side as long as that brings its size nearer to the fraction.
Split by_groups(const Categorical& groups, const SplitOptions& options) {
  std::vector<std::vector<size_t>> cells_of(groups.categories.size());
  for (size_t cell = 0; cell < groups.codes.size(); ++cell) {
    if (groups.codes[cell] < 0)
      throw DataError(fmt::format("{}:/obs/{}: cell {} has no value, so its group is not known", options.input, options.group, cell));
    cells_of[static_cast<size_t>(groups.codes[cell])].push_back(cell);
  }
  std::vector<size_t> order;
  for (size_t g = 0; g < cells_of.size(); ++g)
    if (!cells_of[g].empty()) order.push_back(g);
  if (order.size() < 2)
    throw DataError(fmt::format("{}:/obs/{}: wanted at least two groups to split, found {}", options.input, options.group, order.size()));
  Random(options.common.seed, 0).shuffle(order);
  Split split{std::vector<char>(groups.codes.size(), 0), {}, {}};
  const double wanted = options.fraction * static_cast<double>(groups.codes.size());
  double taken = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    const std::vector<size_t>& cells = cells_of[order[i]];
    const double with = taken + static_cast<double>(cells.size());
    const bool nearer = std::abs(with - wanted) < std::abs(taken - wanted),
               last_chance = split.test_groups.empty() && i + 1 == order.size();
    const bool leaves_none = split.train_groups.empty() && i + 1 == order.size();
    const bool test = (nearer || last_chance) && !leaves_none;
    if (test) taken = with;
    for (size_t cell : cells) split.in_test[cell] = test ? 1 : 0;
    (test ? split.test_groups : split.train_groups).push_back(groups.categories[order[i]]);
  }
  return split;
}

void print_result(const Categorical& labels, const Split& split, const SplitOptions& options) {
  std::map<std::int32_t, std::array<std::uint64_t, 2>> counts;
  std::array<std::uint64_t, 2> all{};
  for (size_t cell = 0; cell < labels.codes.size(); ++cell) {
    const size_t side = split.in_test[cell] != 0 ? 1 : 0;
    ++counts[labels.codes[cell]][side];
    ++all[side];
  }
  const auto name = [&](std::int32_t code) { return code < 0 ? std::string("(missing)") : labels.categories[static_cast<size_t>(code)]; };
  if (options.common.json) {
    nlohmann::ordered_json per_label = nlohmann::ordered_json::object();
    for (const auto& [code, sides] : counts) per_label[name(code)] = {{"train", sides[0]}, {"test", sides[1]}};
    nlohmann::ordered_json result = {{"seed", options.common.seed},
                                     {"by", options.group.empty() ? "cells" : "groups"},
                                     {"n_train", all[0]},
                                     {"n_test", all[1]},
                                     {"labels", per_label}};
    if (!options.group.empty()) result["groups"] = {{"train", split.train_groups}, {"test", split.test_groups}};
    fmt::print("{}\n", result.dump());
    return;
  }
  fmt::print("{:>8} {:>8}  {}\n", "train", "test", options.key);
  for (const auto& [code, sides] : counts) fmt::print("{:>8} {:>8}  {}\n", sides[0], sides[1], name(code));
  fmt::print("{:>8} {:>8}  all\n", all[0], all[1]);
  if (!options.group.empty()) fmt::print("{} of the test cells: {}\n", options.group, fmt::join(split.test_groups, ", "));
}

void check_outputs(const SplitOptions& options) {
  std::error_code ignored;
  if (fs::weakly_canonical(options.train, ignored) == fs::weakly_canonical(options.test, ignored))
    throw UsageError(fmt::format("--train and --test are both {}; give two names", options.train));
  for (const auto& [path, option] : {std::pair{options.train, "--train"}, {options.test, "--test"}}) {
    refuse_same_file(options.input, path);
    require_new(path, options.overwrite ? Overwrite::yes : Overwrite::no, option);
  }
}

void run_split(const SplitOptions& options) {
  const Frame obs(Hdf5::open(options.input).at("obs"));
  const Categorical labels = obs.categorical(options.key);
  check_outputs(options);
  const Split split = options.group.empty() ? stratified(labels, options) : by_groups(obs.categorical(options.group), options);
  std::vector<std::uint64_t> train, test;
  for (size_t cell = 0; cell < split.in_test.size(); ++cell) (split.in_test[cell] ? test : train).push_back(cell);
  if (train.empty() || test.empty())
    throw DataError(fmt::format("{}: a split of {} cells at --fraction {} leaves one side empty", options.input, split.in_test.size(),
                                options.fraction));
  const Existing existing = options.overwrite ? Existing::replace : Existing::refuse;
  say(options.common, fmt::format("writing {} cells to {}", train.size(), options.train));
  for (const std::string& line : write_cells_of(options.input, train, options.train, existing)) warn(line);
  say(options.common, fmt::format("writing {} cells to {}", test.size(), options.test));
  write_cells_of(options.input, test, options.test, existing);
  print_result(labels, split, options);
}

}  // namespace

void register_split(Command program) {
  const auto options = std::make_shared<SplitOptions>();
  Command command = add_command(program, "split", "training and test cells, stratified by a label or by whole groups",
                                "langcell split cells.h5ad --key cell_type --fraction 0.2 --seed 0 --train train.h5ad --test heldout.h5ad");
  command.add_option("input", options->input, "the .h5ad to split; it is not changed").required();
  command.add_option("--key", options->key, "column of obs: every label is divided by the same fraction").required();
  command.add_option("--group", options->group, "column of obs whose groups are never divided (donor_id)");
  command.add_option("--fraction", options->fraction, "share of test cells").range(0.001, 0.999).capture_default_str();
  command.add_option("--train", options->train, "the .h5ad of training cells").required();
  command.add_option("--test", options->test, "the .h5ad of test cells").required();
  command.add_option("--seed", options->common.seed, "the same seed gives the same split").capture_default_str();
  command.add_flag("--overwrite", options->overwrite, "replace existing outputs");
  command.add_flag("--quiet", options->common.quiet, "no progress on standard error");
  command.add_flag("--json", options->common.json, "the result as one JSON object on standard output");
  command.callback([options] { run_split(*options); });
}

}  // namespace lc
