#include "tools/anndata/text_lines.h"

#include <fmt/format.h>
#include <zlib.h>

#include <cerrno>
#include <cstring>

#include "engine/errors.h"

namespace lc {
namespace {

constexpr size_t kBuffer = size_t{1} << 20;

}  // namespace

void TextLines::Closer::operator()(void* file) const { gzclose_r(static_cast<gzFile>(file)); }

TextLines::TextLines(const std::filesystem::path& path) : path_(path.string()), buffer_(2 * kBuffer) {
  errno = 0;
  file_.reset(gzopen(path.c_str(), "rb"));
  if (!file_) throw DataError(fmt::format("{}: cannot be opened: {}; check the path", path_, errno ? std::strerror(errno) : "no memory"));
  gzbuffer(static_cast<gzFile>(file_.get()), kBuffer);
}

bool TextLines::fill() {
  if (ended_) return false;
  std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
  end_ -= begin_, begin_ = 0;
  if (end_ >= kBuffer) throw DataError(fmt::format("{}: a line longer than 1 MiB; this is no such file", where()));
  const auto file = static_cast<gzFile>(file_.get());
  const int got = gzread(file, buffer_.data() + end_, static_cast<unsigned>(kBuffer));
  int code = Z_OK;
  const char* const why = gzerror(file, &code);
  if (got < 0 || (code != Z_OK && code != Z_STREAM_END))
    throw DataError(fmt::format("{}: damaged or cut off after line {} ({})", path_, number_,
                                code == Z_BUF_ERROR ? "the gzip data end too early" : why));
  end_ += static_cast<size_t>(got);
  ended_ = got == 0;
  return got > 0;
}

bool TextLines::next(std::string_view& line) {
  for (;;) {
    const void* const found = std::memchr(buffer_.data() + begin_, '\n', end_ - begin_);
    if (found || (ended_ && begin_ < end_)) {
      const size_t stop = found ? static_cast<size_t>(static_cast<const char*>(found) - buffer_.data()) : end_;
      line = {buffer_.data() + begin_, stop - begin_};
      if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
      begin_ = found ? stop + 1 : end_;
      ++number_;
      return true;
    }
    if (!fill() && begin_ == end_) return false;
  }
}

std::string TextLines::where() const { return fmt::format("{}, line {}", path_, number_); }

}  // namespace lc
