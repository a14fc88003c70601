// What the users of oneDNN share: one thread per product, and its failures as exceptions.
#pragma once
#include <oneapi/dnnl/dnnl.h>

#include <new>
#include <stdexcept>
#include <string>

#include "kernels/cpu/dispatch.h"

namespace lc::kernels {

// oneDNN may sum in another order when it shares a product among threads: it gets one, the tiles are shared instead.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

// std::bad_alloc when memory ran out, std::runtime_error with the status otherwise.
inline void require_onednn(dnnl_status_t status) {
  if (status == dnnl_success) return;
  if (status == dnnl_out_of_memory) throw std::bad_alloc();
  throw std::runtime_error("oneDNN: a matrix product failed with status " + std::to_string(status) + " (dnnl_types.h names it)");
}

}  // namespace lc::kernels
