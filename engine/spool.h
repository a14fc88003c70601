// Results of long work, cell by cell, in a folder NAME.partial/ until the output can be written: what is there survives a kill, and the
// same command goes on behind it.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "engine/atomic_file.h"

namespace lc {

struct SpoolPart {  // a file of records of one size, one a cell
  std::string name;
  std::size_t bytes;
};

class Spool {
 public:
  // identity: a hash of everything the results depend on. UsageError: the folder is of other work (with Existing::replace it is begun
  // anew), or of a process that is at it now. ResourceError: it cannot be made or read.
  Spool(const std::filesystem::path& output, const std::string& identity, std::vector<SpoolPart> parts, Existing existing);
  ~Spool();  // a folder with nothing in it is removed
  Spool(const Spool&) = delete;
  Spool& operator=(const Spool&) = delete;

  std::uint64_t done() const { return done_; }  // cells that every part holds
  void begin_at(std::uint64_t cells);           // forgets what is behind them; call once, before the first append
  void append(std::size_t part, const void* records, std::uint64_t cells);
  void sync();  // what was appended is on the disk
  void read(std::size_t part, std::uint64_t begin, std::uint64_t end, void* records) const;
  void remove();  // the output is there

 private:
  struct File {
    int descriptor = -1;
    std::uint64_t cells = 0;
  };
  std::filesystem::path path_of(std::size_t part) const { return folder_ / (parts_[part].name + ".bin"); }
  void open_parts();

  std::filesystem::path folder_;
  std::vector<SpoolPart> parts_;
  std::vector<File> files_;
  int lock_ = -1;
  std::uint64_t done_ = 0;
  bool removed_ = false;
};

}  // namespace lc
