// Walks the source tree: the rules of the house that a compiler does not see.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace lc {
namespace {

namespace fs = std::filesystem;

const fs::path kTop = LC_SOURCE_DIR;
const std::vector<std::string> kFloors{"kernels", "engine", "models", "train", "tools"};  // an include runs to the left
const std::set<std::string> kOutside{"build",  ".git",        ".venv",         ".venv-peers", ".gpu",
                                     ".cache", "__pycache__", ".pytest_cache", "third_party"};

struct SourceFile {
  fs::path path;  // from the top
  std::vector<std::string> lines;
  std::string room() const { return path.begin()->string(); }
};

std::vector<SourceFile> files_of_the_tree() {
  std::vector<SourceFile> files;
  for (auto entry = fs::recursive_directory_iterator(kTop); entry != fs::recursive_directory_iterator(); ++entry) {
    if (kOutside.contains(entry->path().filename().string())) {
      entry.disable_recursion_pending();
    } else if (entry->is_regular_file()) {
      SourceFile file{entry->path().lexically_relative(kTop), {}};
      std::ifstream stream(entry->path());
      for (std::string line; std::getline(stream, line);) file.lines.push_back(line);
      files.push_back(std::move(file));
    }
  }
  std::sort(files.begin(), files.end(), [](const auto& a, const auto& b) { return a.path < b.path; });
  return files;
}

const std::vector<SourceFile>& tree() {
  static const std::vector<SourceFile> files = files_of_the_tree();
  return files;
}

bool ends_in(const SourceFile& file, const std::set<std::string>& suffixes) { return suffixes.contains(file.path.extension().string()); }

int floor_of(const std::string& room) {
  const auto found = std::find(kFloors.begin(), kFloors.end(), room);
  return found == kFloors.end() ? -1 : static_cast<int>(found - kFloors.begin());
}

// "" where a file of `room` may include "other/…", else the reason why not.
std::string objection(const std::string& room, const std::string& other) {
  if (other == "tests") return room == "tests" || room == "bench" ? "" : "only tests and benchmarks include tests/";
  if (other == "bench") return room == "bench" ? "" : "nobody includes bench/";
  if (other == "hwy") return "";  // Highway's own examples use quotes
  if (floor_of(other) < 0) return "not a folder of the house (write system headers in angle brackets, others from the top)";
  if (floor_of(room) >= 0 && floor_of(room) < floor_of(other)) return "runs upwards";
  return "";
}

std::vector<std::string> words(const std::string& list) {
  std::ifstream stream(kTop / "CMakeLists.txt");
  const std::string text((std::istreambuf_iterator<char>(stream)), {});
  std::smatch match;
  if (!std::regex_search(text, match, std::regex("set\\(" + list + " ([a-z_ ]+)\\)"))) return {};
  std::istringstream split(match[1].str());
  return {std::istream_iterator<std::string>(split), {}};
}

bool belongs_to_a_word(const std::string& stem, const std::vector<std::string>& all) {
  return std::any_of(all.begin(), all.end(), [&](const std::string& word) { return stem == word || stem.starts_with(word + "_"); });
}

TEST(Tree, IsFound) { EXPECT_GT(tree().size(), 20u) << kTop; }

TEST(Tree, IncludesRunDownwardsOnly) {
  const std::regex include("^\\s*#\\s*include\\s+\"([^/\"]+)(/?)[^\"]*\"");
  for (const SourceFile& file : tree()) {
    if (!ends_in(file, {".h", ".cpp", ".cu", ".cuh"})) continue;
    for (const std::string& line : file.lines) {
      std::smatch match;
      if (!std::regex_search(line, match, include)) continue;
      EXPECT_EQ(objection(file.room(), match[2].length() > 0 ? match[1].str() : ""), "") << file.path << ": " << line;
    }
  }
}

TEST(Tree, TheRuleAboutIncludesKnowsUpFromDown) {
  EXPECT_EQ(objection("train", "models"), "");
  EXPECT_EQ(objection("kernels", "kernels"), "");
  EXPECT_EQ(objection("bench", "tests"), "");
  EXPECT_NE(objection("kernels", "engine"), "");
  EXPECT_NE(objection("models", "train"), "");
  EXPECT_NE(objection("tools", "tests"), "");
  EXPECT_NE(objection("tests", "bench"), "");
  EXPECT_NE(objection("engine", "fmt"), "");
}

TEST(Tree, EveryWordHasItsFiles) {
  const auto differentiable = words("LC_DIFFERENTIABLE"), plain = words("LC_PLAIN");
  ASSERT_FALSE(differentiable.empty());
  ASSERT_FALSE(plain.empty());
  std::vector<std::string> all = differentiable;
  all.insert(all.end(), plain.begin(), plain.end());
  for (const std::string& word : all) {
    EXPECT_TRUE(fs::exists(kTop / "kernels/cpu" / (word + ".cpp"))) << word;
    EXPECT_TRUE(fs::exists(kTop / "tests/cases" / (word + ".cpp"))) << word;
  }
  for (const std::string& word : differentiable) EXPECT_TRUE(fs::exists(kTop / "engine/ops" / (word + ".cpp"))) << word;
  for (const SourceFile& file : tree()) {
    if (file.path.extension() != ".cpp" || (file.path.parent_path() != "tests/cases" && file.path.parent_path() != "engine/ops")) continue;
    const std::string stem = file.path.stem().string();
    EXPECT_TRUE(belongs_to_a_word(stem, all) || stem == "across_ranks") << file.path << " is named after no word";
  }
}

TEST(Tree, NoSourceIsLongerThan500Lines) {
  for (const SourceFile& file : tree()) {
    if (!ends_in(file, {".h", ".cpp", ".cu", ".cuh", ".py", ".sh"})) continue;
    EXPECT_LE(file.lines.size(), 500u) << file.path;
  }
}

TEST(Tree, NoLineIsLongerThan140Columns) {
  for (const SourceFile& file : tree()) {
    if (!ends_in(file, {".h", ".cpp", ".cu", ".cuh"})) continue;
    for (size_t i = 0; i < file.lines.size(); ++i) {
      const auto columns = std::count_if(file.lines[i].begin(), file.lines[i].end(), [](char c) { return (c & 0xc0) != 0x80; });  // UTF-8
      EXPECT_LE(columns, 140) << file.path.string() << ":" << i + 1;
    }
  }
}

// Above the engine nobody names a device's folder: which kernel runs is chosen by the queue.
TEST(Tree, TheFloorsAboveTheEngineIncludeNoDevice) {
  const std::regex include("^\\s*#\\s*include\\s+[\"<]kernels/(cpu|cuda)/");
  for (const SourceFile& file : tree()) {
    if (file.room() != "models" && file.room() != "train" && file.room() != "tools") continue;
    for (const std::string& line : file.lines) EXPECT_FALSE(std::regex_search(line, include)) << file.path << ": " << line;
  }
}

// The driver says what is done through the engine: no kernel's arguments, no header of theirs.
TEST(Tree, TheDriverIncludesNoKernel) {
  const std::regex include("^\\s*#\\s*include\\s+[\"<]kernels/");
  for (const SourceFile& file : tree()) {
    if (file.room() != "train") continue;
    for (const std::string& line : file.lines) EXPECT_FALSE(std::regex_search(line, include)) << file.path << ": " << line;
  }
}

TEST(Tree, CudaSourcesLieWithTheKernels) {
  for (const SourceFile& file : tree()) {
    if (!ends_in(file, {".cu", ".cuh"})) continue;
    EXPECT_TRUE(file.room() == "kernels" || file.room() == "tests") << file.path;
  }
}

TEST(Tree, HeadersAreReadOnce) {
  for (const SourceFile& file : tree()) {
    if (!ends_in(file, {".h", ".cuh"}) || file.path.stem().string().ends_with("-inl")) continue;  // Highway reads those once per target
    EXPECT_TRUE(std::find(file.lines.begin(), file.lines.end(), "#pragma once") != file.lines.end()) << file.path;
  }
}

TEST(Tree, NothingIsLeftToBeDoneOrNamesAMachine) {
  // Built from halves, so that this file does not find itself.
  const std::vector<std::string> forbidden{std::string("TO") + "DO", std::string("FIX") + "ME", std::string("/wo") + "rk/",
                                           std::string("/ro") + "ot/", std::string("/fa") + "rm/"};
  for (const SourceFile& file : tree()) {
    for (size_t i = 0; i < file.lines.size(); ++i) {
      for (const std::string& word : forbidden) {
        EXPECT_EQ(file.lines[i].find(word), std::string::npos) << file.path.string() << ":" << i + 1 << ": " << word;
      }
    }
  }
}

}  // namespace
}  // namespace lc
