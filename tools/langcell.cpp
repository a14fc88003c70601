// main: parses, runs one subcommand, turns an exception into one line and an exit code. Nothing else ends the process.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>

#include "engine/build.h"
#include "engine/errors.h"
#include "engine/hdf5/server.h"
#include "engine/nearest.h"
#include "tools/commands/command.h"
#include "tools/commands/out_of_memory.h"

namespace {

int fail(int code, const std::string& line) {
  fmt::print(stderr, "langcell: error: {}\n", lc::printable(line));
  return code;
}

std::vector<std::string> names_of_commands(const CLI::App& program) {
  std::vector<std::string> names;
  for (const CLI::App* command : program.get_subcommands(nullptr)) names.push_back(command->get_name());
  return names;
}

// The command that was typed, as far as its words are commands.
const CLI::App& command_of(const CLI::App& program, int argc, char** argv) {
  const CLI::App* at = &program;
  for (int i = 1; i < argc; ++i) {
    const auto inner = at->get_subcommands(nullptr);
    const auto next = std::ranges::find(inner, argv[i], [](const CLI::App* command) { return command->get_name(); });
    if (next == inner.end()) break;
    at = *next;
  }
  return *at;
}

// What is behind CLI11's words, which name what is missing before what is mistyped.
std::string explained(const CLI::App& program, const CLI::ParseError& error, int argc, char** argv) {
  const CLI::App& command = command_of(program, argc, argv);
  std::vector<std::string> known;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
  }
  for (int i = 1; i < argc && !known.empty(); ++i) {
    const std::string word = std::string(argv[i]).substr(0, std::string(argv[i]).find('='));
    if (!word.starts_with("--") || word.size() < 3 || std::ranges::find(known, word) != known.end()) continue;
    const auto nearest = std::ranges::min_element(known, {}, [&](const std::string& name) { return lc::edit_distance(word, name); });
    return fmt::format("{}: no such option; did you mean {}?", word, *nearest);
  }
  const std::vector<std::string> inner = names_of_commands(command);
  const bool wants_command = error.get_exit_code() == static_cast<int>(CLI::ExitCodes::RequiredError) && !inner.empty();
  return wants_command ? fmt::format("which command? There are: {}", fmt::join(inner, ", ")) : error.what();
}

int run(int argc, char** argv) {
  CLI::App program("LangCell: cells and the words for them. Train on your own cells, label cells by a text.", "langcell");
  program.set_version_flag("--version", std::string("langcell ") + lc::build::kVersion);
  program.require_subcommand(1);
  program.footer(
      "first labels:\n  langcell train cells.h5ad --texts types.json --label-key cell_type --out model\n  langcell annotate new.h5ad "
      "--model model --texts types.json --out labelled.h5ad\n");
  for (const auto add : {lc::register_info, lc::register_simulate, lc::register_split, lc::register_vocab, lc::register_texts,
                         lc::register_tokenize, lc::register_plan, lc::register_pretrain, lc::register_train, lc::register_annotate,
                         lc::register_embed, lc::register_evaluate, lc::register_report, lc::register_import, lc::register_export}) {
    add(lc::Command(&program));
  }
  try {
    program.parse(argc, argv);
    return 0;
  } catch (const CLI::CallForHelp& e) {
    return program.exit(e);
  } catch (const CLI::CallForAllHelp& e) {
    return program.exit(e);
  } catch (const CLI::CallForVersion& e) {
    return program.exit(e);
  } catch (const CLI::ParseError& e) {
    const std::vector<std::string> commands = names_of_commands(program);
    if (argc > 1 && argv[1][0] != '-' && std::ranges::find(commands, argv[1]) == commands.end())
      return fail(2, fmt::format("unknown command '{}'; there are: {}", argv[1], fmt::join(commands, ", ")));
    return fail(2, fmt::format("{} (langcell --help, or langcell COMMAND --help, shows what there is)", explained(program, e, argc, argv)));
  } catch (...) {
    const lc::Failure failure = lc::failure_in_flight();
    return failure.line.empty() ? failure.code : fail(failure.code, failure.line);
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (const std::optional<int> code = lc::serve_files(argc, argv)) return *code;
    std::signal(SIGXFSZ, SIG_IGN);  // a file-size limit is then an error of write(), with a message
    lc::explain_crashes_without_memory();
    return run(argc, argv);
  } catch (...) {  // before there is a command, or while an error is being said: only memory can be wanting
    std::fputs("langcell: error: out of memory; free memory or raise its limit (ulimit -v)\n", stderr);
    return 5;
  }
}
