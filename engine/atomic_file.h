// A file appears under its name only when it is complete and synced; before that it lies beside it as NAME.partial-PID.
#pragma once
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace lc {

enum class Existing { refuse, replace };

// Write, then commit(); an object destroyed without commit() removes what it wrote. Throws ResourceError (5) naming path and cause,
// UsageError (2) where something exists under `refuse`.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path, Existing existing = Existing::replace);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  const std::filesystem::path& partial_path() const { return partial_; }  // for libraries that write by name (HDF5)
  void commit();                                                          // fsync, rename, fsync of the folder

 private:
  std::filesystem::path path_, partial_;
  Existing existing_;
  int descriptor_ = -1;
  bool committed_ = false;
};

// ResourceError: cannot VERB PATH, why (of errno), what to do.
[[noreturn]] void throw_file_error(const char* verb, const std::filesystem::path& path, int code);

void write_file(const std::filesystem::path& path, std::string_view text);  // atomically
std::string read_file(const std::filesystem::path& path,
                      size_t limit = size_t{1} << 30);  // DataError when missing, unreadable or above limit

// A folder built as NAME.partial-PID and renamed when complete; `replace` moves the old one aside first and removes it last.
class AtomicFolder {
 public:
  explicit AtomicFolder(std::filesystem::path path, Existing existing = Existing::refuse);
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;
  const std::filesystem::path& partial_path() const { return partial_; }
  void commit();

 private:
  std::filesystem::path path_, partial_;
  Existing existing_;
  bool committed_ = false;
};

// Removes NAME.partial-PID and NAME.old-PID, files or folders, whose process is gone. For a folder that one run owns, or for the one name
// in it that the caller owns.
void remove_leftovers(const std::filesystem::path& folder, std::string_view name = {});

std::string sha256_of_file(const std::filesystem::path& path);  // lower-case hex
std::string sha256_of(std::string_view bytes);

}  // namespace lc
