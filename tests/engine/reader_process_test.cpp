// Files through the process that reads them: what it says and what is read here agree, its death is noticed, and it can open nothing.
#include "engine/hdf5/reader_process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "engine/errors.h"
#include "engine/hdf5.h"
#include "engine/hdf5/sandbox.h"
#include "tests/support/expect_error.h"
#include "tests/support/test_data.h"

namespace lc {
namespace {

using test::holds;
using test::message_of;
using test::TemporaryFolder;

template <class To>
void both_ways_agree(const Hdf5& here, const Hdf5& by_library, const std::string& name) {
  for (const auto& [begin, end] : std::vector<std::pair<std::uint64_t, std::uint64_t>>{{0, 33}, {5, 6}, {7, 21}, {20, 33}})
    EXPECT_EQ(here.read_rows<To>(begin, end), by_library.read_rows<To>(begin, end)) << name << " rows " << begin << " to " << end;
}

template <class From>
void write_extremes(const Hdf5& file, const std::string& name, const H5Storage& storage) {
  std::vector<From> values(33 * 5);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<From>(i % 3 == 0 ? i : i % 3 == 1 ? 200 - i : i * i);
  values[1] = std::numeric_limits<From>::max(), values[34] = std::numeric_limits<From>::lowest(), values[100] = static_cast<From>(2.75);
  file.write<From>(name, std::span<const From>(values), H5Shape{33, 5}, storage);
}

TEST(ReaderProcess, NumbersReadHereAreThoseOfTheLibraryOfEveryTypeInEveryStorage) {
  const TemporaryFolder folder;
  const std::vector<H5Storage> storages = {
      {}, {.gzip = 3}, {.gzip = 0, .chunk = {4, 2}}, {.gzip = 1, .chunk = {7, 5}}, {.gzip = 1, .chunk = {1, 3}}};
  {
    Hdf5 file = Hdf5::create(folder / "a.h5");
    for (size_t s = 0; s < storages.size(); ++s) {
      const std::string at = std::to_string(s);
      write_extremes<float>(file, "f32_" + at, storages[s]), write_extremes<double>(file, "f64_" + at, storages[s]);
      write_extremes<std::int8_t>(file, "i8_" + at, storages[s]), write_extremes<std::uint8_t>(file, "u8_" + at, storages[s]);
      write_extremes<std::int16_t>(file, "i16_" + at, storages[s]), write_extremes<std::uint16_t>(file, "u16_" + at, storages[s]);
      write_extremes<std::int32_t>(file, "i32_" + at, storages[s]), write_extremes<std::uint32_t>(file, "u32_" + at, storages[s]);
      write_extremes<std::int64_t>(file, "i64_" + at, storages[s]), write_extremes<std::uint64_t>(file, "u64_" + at, storages[s]);
    }
    file.close();
  }
  const Hdf5 here = Hdf5::open(folder / "a.h5"), library = Hdf5::edit(folder / "a.h5");  // what may be written to, the library reads
  for (const std::string& name : here.children()) {
    const Hdf5 a = here.at(name), b = library.at(name);
    both_ways_agree<float>(a, b, name), both_ways_agree<double>(a, b, name);
    both_ways_agree<std::int8_t>(a, b, name), both_ways_agree<std::uint8_t>(a, b, name);
    both_ways_agree<std::int16_t>(a, b, name), both_ways_agree<std::uint16_t>(a, b, name);
    both_ways_agree<std::int32_t>(a, b, name), both_ways_agree<std::uint32_t>(a, b, name);
    both_ways_agree<std::int64_t>(a, b, name), both_ways_agree<std::uint64_t>(a, b, name);
  }
}

TEST(ReaderProcess, OneThatDiesIsDamageOfTheFileAndTheNextFileGetsAnother) {
  const TemporaryFolder folder;
  Hdf5 written = Hdf5::create(folder / "a.h5");
  written.write<float>("x", std::vector<float>{1, 2, 3});
  written.close();
  const Hdf5 file = Hdf5::open(folder / "a.h5");
  kill(h5::ReaderProcess::get()->process(), SIGKILL);
  EXPECT_TRUE(holds(message_of<h5::ReaderLost>([&] { file.children(); }), "a.h5: its reader ended without an answer"));
  EXPECT_TRUE(holds(message_of<h5::ReaderLost>([&] { file.children(); }), "a.h5: cannot be read further"));
  EXPECT_EQ(Hdf5::open(folder / "a.h5").at("x").read<float>(), (std::vector<float>{1, 2, 3}));
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// The exit code of a process in the sandbox that does this; minus the signal's number when it dies of one.
int in_sandbox(int (*act)()) {
  const pid_t child = fork();
  if (child == 0) {
    h5::enter_sandbox(3);
    _exit(act());
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

TEST(ReaderProcess, InItsSandboxNothingIsOpenedStartedOrSent) {
  EXPECT_EQ(in_sandbox([] { return 0; }), 0);
  EXPECT_EQ(in_sandbox([] { return ::open("/etc/passwd", O_RDONLY) < 0 ? errno : 0; }), EACCES);
  EXPECT_EQ(in_sandbox([] { return ::socket(AF_INET, SOCK_STREAM, 0); }), -SIGSYS);
  EXPECT_EQ(in_sandbox([] { return static_cast<int>(::fork()); }), -SIGSYS);
  EXPECT_EQ(in_sandbox([] { return ::kill(getppid(), 0); }), -SIGSYS);
}
#endif

}  // namespace
}  // namespace lc
