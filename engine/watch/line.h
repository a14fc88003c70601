// How ranks tell each other that they live: one TCP connection between rank 0 and each other rank, beside whatever moves the numbers. What
// is sent is a beat of the program itself: a kernel answers for a process that has been stopped.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/comm.h"

namespace lc {

struct Standing {  // where a rank is: the collectives it has begun and ended, and the last it began
  std::int64_t begun = 0, ended = 0, bytes = 0;
  std::array<char, 24> name{};
  bool waits() const { return begun > ended; }
  bool operator==(const Standing&) const = default;
};

enum class Word : std::int32_t { hello, beat, goodbye, failed, over };  // over: rank 0 says that the run is

struct Message {
  Word word = Word::beat;
  std::int32_t rank = 0, code = 0;  // failed, over: whose fault, and what its process ends with
  Standing standing{};
  std::string text{};
};

// Sends and receives whole messages and waits for nothing.
class Line {
 public:
  explicit Line(int descriptor = -1) : descriptor_(descriptor) {}
  ~Line() { close(); }
  Line(Line&& other) noexcept;
  Line& operator=(Line&& other) noexcept;
  bool is_open() const { return descriptor_ >= 0; }
  int descriptor() const { return descriptor_; }
  bool has_more() const { return !out_.empty(); }  // the socket took no more for now: see flush
  void send(const Message& message);
  void flush();
  bool receive(std::vector<Message>& into);  // appends what has come; false: the other end is gone
  void close();

 private:
  int descriptor_;
  std::string in_, out_;
};

struct Lines {
  std::vector<Line> to;   // on rank 0 one to each rank, [0] closed; on the others [0] alone
  std::string unreached;  // not empty: which ranks could not reach rank 0, the same on all ranks; then there are no lines
};

// Collective. The addresses of rank 0 travel through `ranks`; a secret does too, so nobody else can call.
Lines connect_ranks(Communicator& ranks);

}  // namespace lc
