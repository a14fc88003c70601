// A tensor: contiguous rows with one row stride, one dtype, one queue. Copying copies the handle, never the numbers.
// There are no other strides: a column slice (q, k, v of one product) is the only view. Rows are allocated in multiples of 64.
#pragma once
#include <array>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace lc {

class Tape;

class Shape {  // up to four sizes; the last is the row
 public:
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> sizes);
  int rank() const { return rank_; }
  std::int64_t operator[](int i) const { return sizes_[i < 0 ? i + rank_ : i]; }  // negative: from the end
  std::int64_t count() const;
  std::int64_t rows() const { return rank_ < 2 ? (rank_ == 0 ? 0 : 1) : count_rows(); }
  std::int64_t columns() const { return rank_ == 0 ? 0 : sizes_[rank_ - 1]; }
  std::string text() const;  // "(3, 4)"
  friend bool operator==(const Shape&, const Shape&) = default;

 private:
  std::int64_t count_rows() const;
  std::array<std::int64_t, 4> sizes_{};
  int rank_ = 0;
};

class Tensor;

// What makes a parameter's tensor special: its gradient lies in the arena and is added to; the tape is the one the arena is attached to.
struct Leaf {
  Tape* tape = nullptr;
  std::shared_ptr<float> gradient;  // same shape as the tensor, contiguous; null before training
  std::string name;
};

class Tensor {
 public:
  Tensor() = default;                                           // absent
  static Tensor empty(const Shape&, DType, const Queue& = {});  // uninitialised
  static Tensor zeros(const Shape&, DType, const Queue& = {});
  static Tensor scalar(float value, const Queue& = {});  // (1) float
  template <class T>
  static Tensor from(std::span<const T> values, const Shape& shape, const Queue& queue = {}) {
    return from_bytes(values.data(), values.size() * sizeof(T), shape, dtype_of<T>, queue);
  }
  template <class T>
  static Tensor from(const std::vector<T>& values, const Queue& queue = {}) {
    return from(std::span<const T>(values), Shape{static_cast<std::int64_t>(values.size())}, queue);
  }
  // Memory of somebody else (the arena): kept alive through `owner`.
  static Tensor over(std::shared_ptr<std::byte> owner, const Shape&, DType, const Queue&, std::shared_ptr<Leaf> leaf = {});

  explicit operator bool() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  std::int64_t rows() const { return shape_.rows(); }
  std::int64_t columns() const { return shape_.columns(); }
  std::int64_t stride() const { return stride_; }  // elements from row to row
  bool contiguous() const { return stride_ == columns() || rows() <= 1; }
  DType dtype() const { return dtype_; }
  const Queue& queue() const { return queue_; }

  void* raw() const { return storage_.get(); }
  template <class T>
  T* data() const {
    return static_cast<T*>(checked(dtype_of<T>));
  }
  template <class T>
  kernels::Rows<T> view() const {  // T may be const
    return {storage_ ? static_cast<T*>(checked(dtype_of<std::remove_const_t<T>>)) : nullptr, rows(), columns(), stride_};
  }
  Tensor slice_columns(std::int64_t begin, std::int64_t count) const;  // a view; its gradient is the same slice of the whole's gradient
  Tensor slice_rows(std::int64_t begin, std::int64_t count) const;     // a view; not differentiable
  template <class T>
  std::vector<T> to_host() const {
    std::vector<T> out(static_cast<std::size_t>(shape_.count()));
    copy_to_host(out.data(), dtype_of<T>);
    return out;
  }
  float item() const;      // the one element of a float tensor, on the host
  Tensor to(DType) const;  // converted copy (f32, bf16); itself when equal
  void fill_zero() const;
  static Tensor stacked(std::span<const Tensor> parts);  // rows end to end, a copy off any tape; absent parts are left out

  // ---- gradient
  Tape* tape() const { return leaf_ ? leaf_->tape : tape_; }  // null: needs no gradient
  int slot() const { return slot_; }
  std::int64_t first_column() const { return first_column_; }  // of this view in the recorded tensor
  const std::shared_ptr<Leaf>& leaf() const { return leaf_; }
  Tensor detached() const;                      // the same numbers, off any tape
  Tensor without_numbers() const;               // the same place on the tape, no memory
  Tensor recorded(Tape* tape, int slot) const;  // for the tape itself

 private:
  static Tensor from_bytes(const void*, std::size_t bytes, const Shape&, DType, const Queue&);
  void* checked(DType) const;
  void copy_to_host(void*, DType) const;
  std::shared_ptr<std::byte> storage_;
  Shape shape_;
  std::int64_t stride_ = 0, first_column_ = 0;
  DType dtype_ = DType::f32;
  Queue queue_;
  Tape* tape_ = nullptr;
  int slot_ = -1;
  std::shared_ptr<Leaf> leaf_;
};

// Runs f<Device>() where a queue says: the one place where the device is chosen. The queue's device was asked for when its memory was.
template <class F>
void on(const Queue& queue, F&& f) {
  if (queue.imagined())
    f.template operator()<Device::none>();
  else if (queue.device == Device::cuda)
    f.template operator()<Device::cuda>();
  else
    f.template operator()<Device::cpu>();
}
// Runs f<Device, T>() for a queue and a storage type.
template <class F>
void on(const Queue& queue, DType type, F&& f) {
  on(queue, [&]<Device D>() {
    if (type == DType::bf16)
      f.template operator()<D, bf16>();
    else
      f.template operator()<D, float>();
  });
}
void require_storage_type(const char* word, const Tensor& x);  // f32 or bf16, else ShapeError

}  // namespace lc
