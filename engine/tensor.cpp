#include "engine/tensor.h"

#include <fmt/format.h>

#include <cstring>

#include "engine/errors.h"
#include "engine/memory.h"
#include "kernels/cuda/device.h"

namespace lc {

Shape::Shape(std::initializer_list<std::int64_t> sizes) {
  if (sizes.size() > sizes_.size()) throw ShapeError(fmt::format("shape: wanted at most {} sizes, got {}", sizes_.size(), sizes.size()));
  for (const std::int64_t n : sizes) {
    if (n < 0) throw ShapeError(fmt::format("shape: wanted sizes of at least 0, got {}", n));
    sizes_[rank_++] = n;
  }
}

std::int64_t Shape::count() const {
  std::int64_t n = rank_ > 0 ? 1 : 0;
  for (int i = 0; i < rank_; ++i) n *= sizes_[i];
  return n;
}

std::int64_t Shape::count_rows() const {
  std::int64_t n = 1;
  for (int i = 0; i + 1 < rank_; ++i) n *= sizes_[i];
  return n;
}

std::string Shape::text() const {
  std::string s = "(";
  for (int i = 0; i < rank_; ++i) s += fmt::format("{}{}", i ? ", " : "", sizes_[i]);
  return s + ")";
}

Tensor Tensor::empty(const Shape& shape, DType type, const Queue& queue) {
  const std::int64_t granule = queue.device == Device::cpu ? 64 : 1;  // the CPU's matrix products may read and write whole granules of rows
  const std::int64_t rows = shape.rank() < 2 ? 1 : (shape.rows() + granule - 1) / granule * granule;
  Tensor t;
  t.storage_ = allocate(queue, static_cast<std::size_t>(std::max<std::int64_t>(1, rows * shape.columns())) * size_of(type));
  t.shape_ = shape, t.stride_ = shape.columns(), t.dtype_ = type, t.queue_ = queue;
  return t;
}

Tensor Tensor::zeros(const Shape& shape, DType type, const Queue& queue) {
  Tensor t = empty(shape, type, queue);
  t.fill_zero();
  return t;
}

Tensor Tensor::scalar(float value, const Queue& queue) { return from(std::span<const float>(&value, 1), Shape{1}, queue); }

Tensor Tensor::from_bytes(const void* values, std::size_t bytes, const Shape& shape, DType type, const Queue& queue) {
  if (bytes != static_cast<std::size_t>(shape.count()) * size_of(type)) {
    throw ShapeError(fmt::format("tensor: wanted {} elements for {}, got {}", shape.count(), shape.text(), bytes / size_of(type)));
  }
  Tensor t = empty(shape, type, queue);
  if (queue.imagined()) return t;
  if (queue.device == Device::cuda)
    cuda::upload(queue, t.raw(), values, {bytes, 1, bytes, bytes});
  else if (bytes)
    std::memcpy(t.raw(), values, bytes);
  return t;
}

Tensor Tensor::over(std::shared_ptr<std::byte> owner, const Shape& shape, DType type, const Queue& queue, std::shared_ptr<Leaf> leaf) {
  Tensor t;
  t.storage_ = std::move(owner), t.shape_ = shape, t.stride_ = shape.columns(), t.dtype_ = type, t.queue_ = queue,
  t.leaf_ = std::move(leaf);
  return t;
}

Tensor Tensor::slice_columns(std::int64_t begin, std::int64_t count) const {
  if (shape_.rank() != 2 || begin < 0 || count < 0 || begin + count > columns()) {
    throw ShapeError(fmt::format("slice_columns: wanted columns within {}, got [{}, {})", shape_.text(), begin, begin + count));
  }
  Tensor t = *this;
  t.storage_ = std::shared_ptr<std::byte>(storage_, storage_.get() + begin * static_cast<std::int64_t>(size_of(dtype_)));
  t.shape_ = Shape{rows(), count};
  t.first_column_ += begin;
  return t;
}

Tensor Tensor::slice_rows(std::int64_t begin, std::int64_t count) const {
  if (shape_.rank() != 2 || begin < 0 || count < 0 || begin + count > rows()) {
    throw ShapeError(fmt::format("slice_rows: wanted rows within {}, got [{}, {})", shape_.text(), begin, begin + count));
  }
  Tensor t = detached();
  t.storage_ = std::shared_ptr<std::byte>(storage_, storage_.get() + begin * stride_ * static_cast<std::int64_t>(size_of(dtype_)));
  t.shape_ = Shape{count, columns()};
  return t;
}

void* Tensor::checked(DType type) const {
  if (!storage_) throw ShapeError(fmt::format("tensor: wanted {} data, got an absent tensor", name_of(type)));
  if (type != dtype_) throw ShapeError(fmt::format("tensor: wanted {}, got {} {}", name_of(type), name_of(dtype_), shape_.text()));
  return storage_.get();
}

void Tensor::copy_to_host(void* out, DType type) const {
  const std::byte* from = static_cast<const std::byte*>(checked(type));
  const std::size_t row = static_cast<std::size_t>(columns()) * size_of(dtype_), step = static_cast<std::size_t>(stride_) * size_of(dtype_);
  if (queue_.imagined()) return static_cast<void>(std::memset(out, 0, row * static_cast<std::size_t>(rows())));
  if (queue_.device == Device::cuda) return cuda::download(queue_, out, from, {row, static_cast<std::size_t>(rows()), row, step});
  for (std::int64_t i = 0; row > 0 && i < rows(); ++i) std::memcpy(static_cast<std::byte*>(out) + i * row, from + i * step, row);
}

float Tensor::item() const {
  if (shape_.count() != 1) throw ShapeError(fmt::format("item: wanted one element, got {}", shape_.text()));
  return to_host<float>()[0];
}

Tensor Tensor::to(DType type) const {
  if (type == dtype_) return *this;
  require_storage_type("convert", *this);
  Tensor t = empty(shape_, type, queue_);
  on(queue_, [&]<Device D>() {
    if (type == DType::bf16)
      kernels::convert<D>(queue_, kernels::Convert<float, bf16>{view<const float>(), t.view<bf16>(), kernels::Into::write});
    else
      kernels::convert<D>(queue_, kernels::Convert<bf16, float>{view<const bf16>(), t.view<float>(), kernels::Into::write});
  });
  return t;
}

void Tensor::fill_zero() const {
  if (!storage_ || queue_.imagined()) return;
  std::byte* p = storage_.get();
  const std::size_t row = static_cast<std::size_t>(columns()) * size_of(dtype_), step = static_cast<std::size_t>(stride_) * size_of(dtype_);
  if (queue_.device == Device::cuda) return cuda::clear(queue_, p, {row, static_cast<std::size_t>(rows()), step, 0});
  for (std::int64_t i = 0; i < rows(); ++i) std::memset(p + i * step, 0, row);
}

Tensor Tensor::stacked(std::span<const Tensor> parts) {
  std::int64_t rows = 0;
  Tensor like;
  for (const Tensor& t : parts) {
    if (!t) continue;
    if (like && (t.columns() != like.columns() || t.dtype() != like.dtype()))
      throw ShapeError(fmt::format("stacked: wanted rows as in {}, got {}", like.shape().text(), t.shape().text()));
    like = t, rows += t.rows();
  }
  if (!like) return {};
  Tensor all = empty({rows, like.columns()}, like.dtype_, like.queue_);
  rows = 0;
  for (const Tensor& t : parts) {
    if (!t) continue;
    const Tensor place = all.slice_rows(rows, t.rows());
    rows += t.rows();
    on(t.queue_, t.dtype_, [&]<Device D, class T>() {
      kernels::convert<D>(t.queue_, kernels::Convert<T, T>{t.view<const T>(), place.view<T>(), kernels::Into::write});
    });
  }
  return all;
}

Tensor Tensor::detached() const {
  Tensor t = *this;
  t.tape_ = nullptr, t.slot_ = -1, t.first_column_ = 0, t.leaf_ = nullptr;
  return t;
}

Tensor Tensor::without_numbers() const {
  Tensor t = *this;
  t.storage_ = nullptr;
  return t;
}

Tensor Tensor::recorded(Tape* tape, int slot) const {
  Tensor t = detached();
  t.tape_ = tape, t.slot_ = slot;
  return t;
}

void require_storage_type(const char* word, const Tensor& x) {
  if (x.dtype() != DType::f32 && x.dtype() != DType::bf16)
    throw ShapeError(fmt::format("{}: wanted f32 or bf16, got {}", word, name_of(x.dtype())));
}

}  // namespace lc
