// Sequences end to end, never padded: hidden states are (tokens, C) with a packing. Only attention, embedding and dropout look at it.
#pragma once
#include <memory>
#include <vector>

#include "engine/tensor.h"

namespace lc {

struct PackingSpec {
  std::vector<std::int32_t> lengths;  // (B), zeros are legal
  std::vector<std::uint64_t> keys;    // (B) sequence keys for chance (kernels/numeric.h), never positions in the packing
  std::vector<std::int32_t> kv_of;    // (B) which key/value sequence each query sequence reads; empty: its own number
};

class Packing {
 public:
  static std::shared_ptr<const Packing> make(const PackingSpec& spec, const Queue& queue = {});
  std::int64_t sequences() const { return static_cast<std::int64_t>(keys_.size()); }
  std::int64_t tokens() const { return offsets_.back(); }
  std::int64_t longest() const { return longest_; }
  const std::vector<std::int32_t>& offsets() const { return offsets_; }  // (B+1) on the host
  const std::vector<std::uint64_t>& keys() const { return keys_; }
  const std::vector<std::int32_t>& kv_of() const { return kv_of_; }
  const Tensor& first_rows() const { return first_rows_; }  // (B) i32: the row of position 0 of each sequence
  kernels::PackingView view() const;                        // device pointers
  kernels::PackingView own_view() const;                    // the same where every sequence reads itself, whatever kv_of says

 private:
  std::vector<std::int32_t> offsets_, kv_of_;
  std::vector<std::uint64_t> keys_;
  struct StripsThere {  // kernels::Strips in device memory
    Tensor all, of_keys;
    kernels::Strips view() const;
  };
  static Tensor blocks_of(const std::vector<std::int32_t>& offsets, std::int32_t rows, const Queue& queue);  // kernels::RowBlocks
  static StripsThere strips_of(const std::vector<std::int32_t>& offsets, const std::vector<std::int32_t>& kv_of, const Queue& queue);

  std::int64_t longest_ = 0;
  StripsThere own_strips_, shared_strips_;
  Tensor offsets_there_, sequence_of_there_, keys_there_, kv_of_there_, blocks_of_128_, blocks_of_192_, first_rows_;
};
using PackingPtr = std::shared_ptr<const Packing>;

}  // namespace lc
