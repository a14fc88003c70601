// Files with one to four bytes changed, read as tokenize reads them and walked object by object; the process that reads files lives on
// between them. A refusal is right; what crashes this program, hangs, or comes back as a bug is a find.
// usage: mutations FOLDER --from SEED --to SEED   one JSON object on standard output (tools/mutations.py adds them up)
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "engine/errors.h"
#include "engine/hdf5.h"
#include "engine/hdf5/reader_process.h"
#include "engine/hdf5/server.h"
#include "tools/anndata/counts.h"

namespace lc {
namespace {

namespace fs = std::filesystem;

struct Random {  // splitmix64; tools/mutations.py draws the same
  std::uint64_t state;
  std::uint64_t next() {
    std::uint64_t x = state += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
  }
};

class Mutant {  // a copy of a file whose bytes are changed and put back
 public:
  explicit Mutant(const fs::path& base) : path_(fs::path("/dev/shm") / fmt::format("langcell-{}-{}", getpid(), base.filename().string())) {
    fs::copy_file(base, path_, fs::copy_options::overwrite_existing);
    file_ = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
    size_ = fs::file_size(path_);
  }
  ~Mutant() {
    ::close(file_);
    fs::remove(path_);
  }
  Mutant(const Mutant&) = delete;
  Mutant& operator=(const Mutant&) = delete;

  const fs::path& path() const { return path_; }
  void change(Random& random) {
    const auto count = 1 + random.next() % 4;
    for (std::uint64_t i = 0; i < count; ++i) {
      const auto place = static_cast<off_t>(random.next() % size_);
      const auto value = static_cast<char>(random.next() & 255);
      char before = 0;
      if (pread(file_, &before, 1, place) != 1 || pwrite(file_, &value, 1, place) != 1) throw ResourceError("/dev/shm cannot be written");
      undo_.emplace_back(place, before);
    }
  }
  void put_back() {
    for (auto it = undo_.rbegin(); it != undo_.rend(); ++it)
      if (pwrite(file_, &it->second, 1, it->first) != 1) throw ResourceError("/dev/shm cannot be written");
    undo_.clear();
  }

 private:
  fs::path path_;
  int file_ = -1;
  std::uint64_t size_ = 0;
  std::vector<std::pair<off_t, char>> undo_;
};

void look(const Hdf5& object, int depth, int& budget) {
  if (--budget < 0 || depth > 8) return;
  (void)object.attributes();
  (void)object.text_or("encoding-type", "");
  if (object.is_dataset()) {
    const std::uint64_t rows = std::min<std::uint64_t>(object.rows(), 4096);
    const H5Kind kind = object.kind();
    if (kind == H5Kind::text) (void)object.read_strings(0, rows);
    if (kind == H5Kind::integer || kind == H5Kind::floating) (void)object.read_rows<float>(0, rows);
    return;
  }
  for (const std::string& child : object.children()) {
    try {
      look(object.at(child), depth + 1, budget);
    } catch (const h5::ReaderLost&) {
      throw;
    } catch (const DataError&) {  // the next one may be whole
    }
  }
}

struct Tally {
  std::map<std::string, std::uint64_t> outcomes;
  std::vector<std::string> finds;
  double slowest = 0;
  std::uint64_t slowest_seed = 0;
  std::uint64_t largest_kib = 0;

  template <class F>
  void run(std::uint64_t seed, F f) {
    try {
      f();
      ++outcomes["read"];
    } catch (const h5::ReaderLost& e) {
      using How = h5::ReaderLost::How;
      ++outcomes[e.how == How::signalled ? fmt::format("reader died: {}", strsignal(e.signal))
                 : e.how == How::circled ? "reader ended: no progress"
                                         : "reader died: without a signal"];
    } catch (const DataError&) {
      ++outcomes["refused"];
    } catch (const Error& e) {
      finds.push_back(fmt::format("seed {}: exit code {}: {}", seed, e.exit_code(), e.what()));
    } catch (const std::exception& e) {
      finds.push_back(fmt::format("seed {}: {}", seed, e.what()));
    }
  }
};

std::uint64_t resident_kib(pid_t process) {
  std::ifstream status(fmt::format("/proc/{}/status", process));
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::stoull(line.substr(6));
  return 0;
}

nlohmann::ordered_json run(const fs::path& folder, std::uint64_t from, std::uint64_t to) {
  std::vector<fs::path> bases;
  for (const auto& entry : fs::directory_iterator(folder)) bases.push_back(entry.path());
  std::sort(bases.begin(), bases.end());
  if (bases.empty()) throw UsageError(folder.string() + ": no files to change");
  std::vector<std::unique_ptr<Mutant>> mutants;
  for (const fs::path& base : bases) mutants.push_back(std::make_unique<Mutant>(base));
  Tally tally;
  const auto now = [] { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); };
  const double start = now();
  for (std::uint64_t seed = from; seed < to; ++seed) {
    Random random{seed};
    Mutant& mutant = *mutants[seed % mutants.size()];
    mutant.change(random);
    const double begin = now();
    tally.run(seed, [&] {
      int budget = 150;  // objects
      look(Hdf5::open(mutant.path()), 0, budget);
    });
    tally.run(seed, [&] {
      const CountMatrix counts = open_counts(mutant.path());
      counts.for_each_block(64, [](const CsrBlock&) {});
      (void)counts.cells().names();
      for (const std::string& column : counts.cells().columns()) (void)counts.cells().categorical(column);
    });
    if (const double took = now() - begin; took > tally.slowest) tally.slowest = took, tally.slowest_seed = seed;
    tally.largest_kib = std::max(tally.largest_kib, resident_kib(h5::ReaderProcess::get()->process()));
    mutant.put_back();
  }
  return {{"from", from},
          {"to", to},
          {"files", bases.size()},
          {"outcomes", tally.outcomes},
          {"finds", tally.finds},
          {"slowest_s", tally.slowest},
          {"slowest_seed", tally.slowest_seed},
          {"reader_mib", static_cast<double>(tally.largest_kib) / 1024},
          {"program_mib", static_cast<double>(resident_kib(getpid())) / 1024},
          {"seconds", now() - start}};
}

}  // namespace
}  // namespace lc

int main(int argc, char** argv) {
  if (const std::optional<int> code = lc::serve_files(argc, argv)) return *code;
  CLI::App app("changes bytes of files and reads them");
  std::string folder;
  std::uint64_t from = 0, to = 1000;
  app.add_option("FOLDER", folder)->required();
  app.add_option("--from", from);
  app.add_option("--to", to);
  CLI11_PARSE(app, argc, argv);
  const auto result = lc::run(folder, from, to);
  fmt::print("{}\n", result.dump());
  return result["finds"].empty() ? 0 : 1;
}
