// The options of a command, for the files of commands. CLI11 parses them behind this: reading its header takes ten seconds in every file.
#pragma once
#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace lc {

class Option {  // of a command, and as long-lived
 public:
  explicit Option(CLI::Option* option) : option_(option) {}

  Option& required();
  Option& type_name(const std::string& name);  // what --help shows for its value
  Option& capture_default_str();               // --help shows the default
  Option& once_each();                         // one value for each time it is given
  Option& needs(Option other);
  Option& one_of(std::vector<std::string> words);
  Option& positive();
  template <class T>  // int, std::int64_t, std::uint64_t, double
  Option& range(T least, T most);

 private:
  CLI::Option* option_;
};

class Command {  // the program or one of its commands; as long-lived as the program
 public:
  explicit Command(CLI::App* app) : app_(app) {}

  // A command of this one, with an example below its help. Commands of the program come by add_command (command.h).
  Command subcommand(const std::string& name, const std::string& what, const std::string& example);
  void require_command();

  // Names: "--long,--other", or one without dashes for a value by position. T: std::string, std::filesystem::path, a vector of these, int,
  // std::int64_t, std::uint64_t (or an optional one), float, double.
  template <class T>
  Option add_option(const std::string& names, T& value, const std::string& help);
  Option add_flag(const std::string& name, bool& value, const std::string& help);

  void when_parsed(std::function<void()> action);  // before callback, of commands within it too
  void callback(std::function<void()> action);     // the command's work
  bool given(const std::string& name) const;

 private:
  CLI::App* app_;
};

}  // namespace lc
