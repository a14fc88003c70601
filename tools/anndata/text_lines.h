// Lines of a text file, plain or gzip (also of several members), one after another.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace lc {

class TextLines {
 public:
  explicit TextLines(const std::filesystem::path& path);  // DataError when it cannot be opened
  // The next line without its end (LF or CRLF); false at the end. The view is good until the next call. DataError: damaged or cut off gzip,
  // a line longer than 1 MiB.
  bool next(std::string_view& line);
  std::uint64_t number() const { return number_; }  // of the line, from 1
  std::string where() const;                        // "matrix.mtx.gz, line 3"

 private:
  struct Closer {
    void operator()(void* file) const;
  };
  bool fill();

  std::string path_;
  std::unique_ptr<void, Closer> file_;
  std::vector<char> buffer_;
  size_t begin_ = 0, end_ = 0;
  std::uint64_t number_ = 0;
  bool ended_ = false;
};

}  // namespace lc
