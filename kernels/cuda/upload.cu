// Uploads through a ring of pinned memory, so that the host goes on at once: from pageable memory a copy may wait for the whole stream.
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"

namespace lc::cuda {
namespace {

constexpr std::size_t kRing = std::size_t{32} << 20, kLargest = kRing / 4, kAlignment = 64;  // bytes; what is larger waits

// Of one stream. Pieces are taken in the order of their addresses, round and round; a piece is free when the copy from it is done.
class UploadRing {
 public:
  explicit UploadRing(const Queue& queue) : queue_(queue) {
    check("upload", cudaHostAlloc(reinterpret_cast<void**>(&base_), kRing, cudaHostAllocDefault));
  }
  void upload(void* to, const void* from, const Bytes& b) {
    const std::lock_guard lock(mutex_);  // not that of all streams: what a stream does first may wait for another's
    const std::size_t wanted = (b.width * b.rows + kAlignment - 1) / kAlignment * kAlignment;
    std::byte* const piece = base_ + take(wanted);
    for (std::size_t i = 0; i < b.rows; ++i)
      std::memcpy(piece + i * b.width, static_cast<const std::byte*>(from) + i * b.from_step, b.width);
    check("upload", cudaMemcpy2DAsync(to, b.to_step, piece, b.width, b.width, b.rows, cudaMemcpyHostToDevice, stream_of(queue_)));
    check("upload", cudaEventRecord(pieces_.back().copied, stream_of(queue_)));
  }

 private:
  struct Piece {
    std::size_t begin, end;
    cudaEvent_t copied;
  };
  std::size_t take(std::size_t bytes) {
    if (head_ + bytes > kRing) {
      while (!pieces_.empty() && pieces_.front().begin >= head_) retire();  // the end of the round before
      head_ = 0;
    }
    while (!pieces_.empty() && pieces_.front().begin < head_ + bytes && pieces_.front().end > head_) retire();
    cudaEvent_t event{};
    if (events_.empty()) {
      check("upload", cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    } else {
      event = events_.back();
      events_.pop_back();
    }
    pieces_.push_back({head_, head_ + bytes, event});
    head_ += bytes;
    return pieces_.back().begin;
  }
  void retire() {
    check("upload", cudaEventSynchronize(pieces_.front().copied));
    events_.push_back(pieces_.front().copied);
    pieces_.pop_front();
  }
  const Queue queue_;
  std::mutex mutex_;
  std::byte* base_ = nullptr;
  std::size_t head_ = 0;
  std::deque<Piece> pieces_;
  std::vector<cudaEvent_t> events_;
};

}  // namespace

void upload(const Queue& queue, void* to, const void* from, const Bytes& b) {
  if (b.width == 0 || b.rows == 0) return;
  if (b.width * b.rows > kLargest) {
    check("upload", cudaMemcpy2DAsync(to, b.to_step, from, b.from_step, b.width, b.rows, cudaMemcpyHostToDevice, stream_of(queue)));
    check("upload", cudaStreamSynchronize(stream_of(queue)));
    return;
  }
  static std::mutex mutex;
  static auto& rings = *new std::map<std::pair<int, void*>, UploadRing>;  // the driver may be gone before static objects are
  UploadRing* ring = nullptr;
  {
    const std::lock_guard lock(mutex);
    ring = &rings.try_emplace({queue.index, queue.stream}, queue).first->second;
  }
  ring->upload(to, from, b);
}

}  // namespace lc::cuda
