// What stands behind an Hdf5: the file as this process has it open, and the number its reader knows an object by.
#pragma once
#include <ctime>
#include <map>
#include <mutex>

#include "engine/hdf5.h"
#include "engine/hdf5/reader_process.h"

namespace lc {

constexpr std::uint64_t kBytesAtOnce = std::uint64_t{32} << 20;  // of a large object, where a part will do

struct Hdf5::File {
  File(std::string path_, H5Open how_) : path(std::move(path_)), how(how_) {}
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  void open_existing(int flags);

  std::string path;
  H5Open how;
  int descriptor = -1;
  std::int64_t size = 0;
  timespec modified{};
  std::shared_ptr<h5::ReaderProcess> reader;
};

struct Hdf5::Remote {
  Remote(std::shared_ptr<h5::ReaderProcess> reader_, std::uint32_t number_, bool dataset_)
      : reader(std::move(reader_)), number(number_), dataset(dataset_) {}
  ~Remote();
  Remote(const Remote&) = delete;
  Remote& operator=(const Remote&) = delete;

  std::shared_ptr<h5::ReaderProcess> reader;
  std::uint32_t number;
  bool dataset;
  std::mutex mutex;
  std::optional<H5Facts> facts;
  std::map<std::uint64_t, std::vector<std::byte>> chunks;  // those that the next rows begin in
};

template <class R, class... A>
R Hdf5::ask(h5::Verb verb, const A&... arguments) const {
  h5::Wire question;
  question.put(verb), question.put(remote_->number);
  (question.put(arguments), ...);
  [[maybe_unused]] h5::Wire answer = remote_->reader->ask(question, where());
  if constexpr (!std::is_void_v<R>) return answer.get<R>();
}

}  // namespace lc
