// What every subcommand shares. A command is a file: register_NAME adds it to the program with its options, help and example.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "engine/machine.h"
#include "tools/commands/command_line.h"

namespace lc {

struct Common {  // options every long-running command takes
  std::string device = "auto", precision = "auto";
  int threads = 0;  // 0: all cores
  std::uint64_t seed = 0;
  bool quiet = false, profile = false, check_finite = false, json = false;
};

void add_common_options(Command command, Common& common);
void begin(const Common& common);                     // sets threads, profiling, checks; call first in a command
void end(const Common& common);                       // prints the profile, when asked for
Queue queue_of(const Common& common);                 // UsageError for a device this build lacks
DType precision_of(const Common& common, Work work);  // auto, fp32, bf16

// All but info and pretrain refuse to run as one of several tasks of a launcher, which would all do the same.
Command add_command(Command parent, const std::string& name, const std::string& what, const std::string& example);
void say(const Common& common, const std::string& line);  // progress: standard error, unless quiet
std::string printable(std::string_view text);             // one line of UTF-8: what a damaged file's names hold besides is written \xNN
void warn(const std::string& line);                       // standard error, always

struct Failure {
  int code = 0;
  std::string line;  // empty: nothing to say here
};
Failure failure_in_flight();  // of the exception that is being handled

void register_info(Command program);
void register_simulate(Command program);
void register_split(Command program);
void register_vocab(Command program);
void register_texts(Command program);
void register_tokenize(Command program);
void register_plan(Command program);
void register_pretrain(Command program);
void register_train(Command program);
void register_annotate(Command program);
void register_embed(Command program);
void register_evaluate(Command program);
void register_report(Command program);
void register_import(Command program);
void register_export(Command program);

}  // namespace lc
