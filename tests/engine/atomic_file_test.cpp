// Conditions that fail for root as well: a parent that is a file, a limit on file size, /sys.
#include "engine/atomic_file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <set>

#include "engine/errors.h"
#include "tests/support/expect_error.h"
#include "tests/support/test_data.h"

namespace lc {
namespace {

namespace fs = std::filesystem;
using test::holds;
using test::message_of;
using test::TemporaryFolder;

std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.insert(entry.path().filename().string());
  return names;
}

// A disk that is full after `bytes`: the kernel then cuts a write short and fails the next one.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FullDisk() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int);
};

TEST(AtomicFile, AppearsOnlyAtCommit) {
  const TemporaryFolder folder;
  AtomicFile file(folder / "a.txt");
  file.write("one ");
  file.write("two");
  EXPECT_FALSE(fs::exists(folder / "a.txt"));
  EXPECT_TRUE(fs::exists(file.partial_path()));
  EXPECT_EQ(file.partial_path().filename().string(), "a.txt.partial-" + std::to_string(getpid()));
  file.commit();
  EXPECT_EQ(read_file(folder / "a.txt"), "one two");
  EXPECT_EQ(names_in(folder.path()), std::set<std::string>{"a.txt"});
}

TEST(AtomicFile, WithoutCommitNothingIsLeftAndTheOldFileStays) {
  const TemporaryFolder folder;
  write_file(folder / "a.txt", "old");
  {
    AtomicFile file(folder / "a.txt");
    file.write("new");
  }
  EXPECT_EQ(read_file(folder / "a.txt"), "old");
  EXPECT_EQ(names_in(folder.path()), std::set<std::string>{"a.txt"});
}

TEST(AtomicFile, ReplacesWhenAskedAndRefusesWhenAsked) {
  const TemporaryFolder folder;
  write_file(folder / "a.txt", "old");
  EXPECT_TRUE(holds(message_of<UsageError>([&] { AtomicFile(folder / "a.txt", Existing::refuse); }), "a.txt exists already"));
  EXPECT_EQ(read_file(folder / "a.txt"), "old");
  write_file(folder / "a.txt", "new");
  EXPECT_EQ(read_file(folder / "a.txt"), "new");
}

TEST(AtomicFile, RefusesATargetThatAppearsMeanwhile) {
  const TemporaryFolder folder;
  {
    AtomicFile file(folder / "a.txt", Existing::refuse);
    file.write("mine");
    std::ofstream(folder / "a.txt") << "theirs";
    message_of<UsageError>([&] { file.commit(); });
  }
  EXPECT_EQ(read_file(folder / "a.txt"), "theirs");
  EXPECT_EQ(names_in(folder.path()), std::set<std::string>{"a.txt"});
}

TEST(AtomicFile, KeepsASymbolicLinkAndWritesItsTarget) {
  const TemporaryFolder folder;
  write_file(folder / "target", "old");
  fs::create_symlink(folder / "target", folder / "link");
  write_file(folder / "link", "new");
  EXPECT_TRUE(fs::is_symlink(folder / "link"));
  EXPECT_EQ(read_file(folder / "target"), "new");
}

TEST(AtomicFile, SyncsWhatALibraryWroteByName) {
  const TemporaryFolder folder;
  AtomicFile file(folder / "a.h5");
  std::ofstream(file.partial_path(), std::ios::binary) << "by name";
  file.commit();
  EXPECT_EQ(read_file(folder / "a.h5"), "by name");
}

TEST(AtomicFile, AFullDiskIsAResourceErrorAndLeavesNothing) {
  const TemporaryFolder folder;
  {
    const FullDisk disk(1000);
    AtomicFile file(folder / "a.bin");
    const std::string bytes(999, 'x');
    file.write(bytes);
    const std::string message = message_of<ResourceError>([&] { file.write(bytes); });
    EXPECT_TRUE(holds(message, "a.bin"));
    EXPECT_TRUE(holds(message, "File too large; free some space"));
  }
  EXPECT_TRUE(names_in(folder.path()).empty());
}

TEST(AtomicFile, UnwritablePlacesAreNamedWithCauseAndAdvice) {
  const TemporaryFolder folder;
  write_file(folder / "file", "x");
  EXPECT_TRUE(
      holds(message_of<ResourceError>([&] { AtomicFile(folder / "file" / "a.txt"); }), "Not a directory; a part of the path is a file"));
  EXPECT_TRUE(holds(message_of<ResourceError>([&] { AtomicFile(folder / "missing" / "a.txt"); }),
                    "No such file or directory; create its folder first"));
  EXPECT_TRUE(holds(message_of<ResourceError>([&] { AtomicFile(folder.path()); }), "Is a directory"));
  EXPECT_TRUE(holds(message_of<ResourceError>([&] { AtomicFile("/sys/langcell.txt"); }), "cannot write /sys/langcell.txt: "));
  EXPECT_TRUE(holds(message_of<ResourceError>([&] { AtomicFile(folder / std::string(250, 'n')); }), "choose a shorter name"));
  message_of<UsageError>([] { AtomicFile(""); });
  EXPECT_EQ(names_in(folder.path()), std::set<std::string>{"file"});
}

TEST(AtomicFile, ADeviceIsNeverReplaced) {
  EXPECT_TRUE(holds(message_of<ResourceError>([] { AtomicFile("/dev/null"); }), "it is a device or pipe"));
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
}

TEST(ReadFile, RefusesWhatIsMissingAFolderOrAboveTheLimit) {
  const TemporaryFolder folder;
  write_file(folder / "a.txt", "12345");
  EXPECT_EQ(read_file(folder / "a.txt", 5), "12345");
  EXPECT_TRUE(holds(message_of<DataError>([&] { read_file(folder / "a.txt", 4); }), "larger than the 4 bytes"));
  EXPECT_TRUE(holds(message_of<DataError>([&] { read_file(folder / "b.txt"); }), "b.txt: No such file"));
  EXPECT_TRUE(holds(message_of<DataError>([&] { read_file(folder.path()); }), "Is a directory"));
}

TEST(AtomicFolder, AppearsWholeAndIsRemovedWithoutCommit) {
  const TemporaryFolder folder;
  {
    AtomicFolder model(folder.path() / "model/");
    fs::create_directory(model.partial_path() / "cell_bert");
    write_file(model.partial_path() / "cell_bert" / "config.json", "{}");
    EXPECT_FALSE(fs::exists(folder / "model"));
    model.commit();
  }
  EXPECT_EQ(read_file(folder / "model/cell_bert/config.json"), "{}");
  { AtomicFolder lost(folder / "lost"); }
  EXPECT_EQ(names_in(folder.path()), std::set<std::string>{"model"});
}

TEST(AtomicFolder, ReplacesAFullFolderWhenAsked) {
  const TemporaryFolder folder;
  fs::create_directory(folder / "model");
  write_file(folder / "model/old", "old");
  message_of<UsageError>([&] { AtomicFolder(folder / "model"); });
  {
    AtomicFolder lost(folder / "model", Existing::replace);
    write_file(lost.partial_path() / "new", "new");
  }
  EXPECT_EQ(names_in(folder / "model"), std::set<std::string>{"old"});
  AtomicFolder model(folder / "model", Existing::replace);
  write_file(model.partial_path() / "new", "new");
  model.commit();
  EXPECT_EQ(names_in(folder / "model"), std::set<std::string>{"new"});
  EXPECT_EQ(names_in(folder.path()), std::set<std::string>{"model"});
}

TEST(AtomicFolder, RefusesATargetThatAppearsMeanwhileAndAFileInItsPlace) {
  const TemporaryFolder folder;
  write_file(folder / "file", "x");
  message_of<ResourceError>([&] { AtomicFolder(folder / "file", Existing::replace); });
  message_of<ResourceError>([&] { AtomicFolder(folder / "file" / "model"); });
  {
    AtomicFolder model(folder / "model");
    fs::create_directory(folder / "model");
    message_of<UsageError>([&] { model.commit(); });
  }
  EXPECT_EQ(names_in(folder.path()), (std::set<std::string>{"file", "model"}));
}

TEST(Leftovers, WhatWasMovedAsideComesBackWhereNothingTookItsPlace) {
  const TemporaryFolder folder;
  const pid_t dead = ::fork();
  if (dead == 0) ::_exit(0);
  ::waitpid(dead, nullptr, 0);
  const std::string gone = std::to_string(dead);
  fs::create_directories(folder / ("model.old-" + gone) / "kept");
  fs::create_directories(folder / ("model.partial-" + gone));
  fs::create_directories(folder / ("other.old-" + gone));
  fs::create_directories(folder / "other");
  remove_leftovers(folder.path());
  EXPECT_TRUE(fs::exists(folder / "model" / "kept"));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 2);
}

TEST(Leftovers, OfProcessesThatAreGoneAreRemovedAlsoWhereNobodyHasBuriedThem) {
  const TemporaryFolder folder;
  const pid_t dead = ::fork();
  if (dead == 0) ::_exit(0);
  const pid_t living = ::fork();
  if (living == 0) {
    for (;;) ::pause();
  }
  siginfo_t info;
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(dead), &info, WEXITED | WNOWAIT), 0);  // it stays a zombie
  const std::string of_living = "model.partial-" + std::to_string(living);
  write_file(folder / ("model.partial-" + std::to_string(dead)), "x");
  write_file(folder / of_living, "x");
  remove_leftovers(folder.path());
  EXPECT_EQ(names_in(folder.path()), std::set<std::string>{of_living});
  ::kill(living, SIGKILL);
  ::waitpid(living, nullptr, 0), ::waitpid(dead, nullptr, 0);
}

TEST(Sha256, MatchesThePublishedVectors) {
  EXPECT_EQ(sha256_of("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_of(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  const TemporaryFolder folder;
  write_file(folder / "million", std::string(1000000, 'a'));
  EXPECT_EQ(sha256_of_file(folder / "million"), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  message_of<DataError>([&] { sha256_of_file(folder / "missing"); });
}

}  // namespace
}  // namespace lc
