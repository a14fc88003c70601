#include "engine/parameters.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "engine/chance.h"
#include "engine/errors.h"
#include "engine/memory.h"
#include "engine/profile.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cuda/device.h"

namespace lc {
namespace {

std::int64_t round_up(std::int64_t n, std::int64_t granule) { return (n + granule - 1) / granule * granule; }

template <class T>
void fill_zero(const Queue& queue, T* data, std::int64_t count) {
  const auto bytes = static_cast<std::size_t>(count) * sizeof(T);
  if (queue.imagined()) return;
  if (queue.device == Device::cuda) return cuda::clear(queue, data, {bytes, 1, bytes, 0});
  kernels::parallel_for(count, 1 << 16,
                        [&](std::int64_t begin, std::int64_t end, std::int64_t) { std::fill(data + begin, data + end, T{}); });
}

template <class T>
std::shared_ptr<T> zeroed(const Queue& queue, std::int64_t count) {
  const std::shared_ptr<std::byte> memory = allocate(queue, static_cast<std::size_t>(count) * sizeof(T));
  fill_zero(queue, reinterpret_cast<T*>(memory.get()), count);
  return {memory, reinterpret_cast<T*>(memory.get())};
}

// '*' matches any run of characters, everything else itself.
bool matches(const char* glob, const char* text) {
  for (; *glob && *glob != '*'; ++glob, ++text) {
    if (*glob != *text) return false;
  }
  if (!*glob) return !*text;
  for (; matches(glob + 1, text) == false; ++text) {
    if (!*text) return false;
  }
  return true;
}

// Four normal numbers from one Philox call (Box–Muller).
void normals(std::uint64_t name, PhiloxKey key, std::int64_t block, float out[4]) {
  const Philox r = draw(key, name, static_cast<std::uint64_t>(block));
  for (std::size_t pair = 0; pair < 2; ++pair) {
    const double u = (r.word[2 * pair] + 0.5) / 4294967296.0, angle = 2 * std::numbers::pi * (r.word[2 * pair + 1] / 4294967296.0),
                 radius = std::sqrt(-2 * std::log(u));
    out[2 * pair] = static_cast<float>(radius * std::cos(angle)), out[2 * pair + 1] = static_cast<float>(radius * std::sin(angle));
  }
}

double trained(const std::vector<kernels::Segment>& table) {  // elements
  double count = 0;
  for (const kernels::Segment& s : table) count += s.frozen ? 0.0 : static_cast<double>(s.length);
  return count;
}

}  // namespace

Parameter Parameters::declare(const std::vector<std::string>& names, const Shape& each, ParameterKind kind, Initial initial,
                              std::int64_t row_granule) {
  if (master_) throw ShapeError("parameters: wanted every declaration before allocate()");
  Owner owner;
  owner.parameter.tensor_ = std::make_shared<Tensor>();
  owner.parameter.leaf_ = std::make_shared<Leaf>();
  owner.parameter.leaf_->name = names.front();
  owner.offset = size_, owner.kind = kind;
  const std::int64_t stacked = static_cast<std::int64_t>(names.size());
  owner.shape =
      each.rank() == 1 ? Shape{round_up(each[0] * stacked, row_granule)} : Shape{round_up(each[0] * stacked, row_granule), each[1]};
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (find(names[i])) throw ShapeError(fmt::format("parameters: {} is declared twice", names[i]));
    named_.push_back({names[i], each, size_ + static_cast<std::int64_t>(i) * each.count(), kind, initial, false, owners_.size()});
  }
  size_ += round_up(owner.shape.count(), kSlice);
  owners_.push_back(owner);
  return owner.parameter;
}

void Parameters::allocate(DType storage, const Queue& queue) {
  storage_type_ = storage, queue_ = queue;
  master_ = zeroed<float>(queue, size_);
  if (storage == DType::bf16) storage_ = zeroed<bf16>(queue, size_);
  for (Owner& o : owners_) {
    const bool low = storage == DType::bf16 && o.kind == ParameterKind::matrix;
    const std::shared_ptr<std::byte> at =
        low ? std::shared_ptr<std::byte>(storage_, reinterpret_cast<std::byte*>(storage_.get() + o.offset))
            : std::shared_ptr<std::byte>(master_, reinterpret_cast<std::byte*>(master_.get() + o.offset));
    *o.parameter.tensor_ = Tensor::over(at, o.shape, low ? DType::bf16 : DType::f32, queue, o.parameter.leaf_);
  }
}

void Parameters::initialize(std::uint64_t seed) {
  const PhiloxKey key = chance_of_step(seed, 0, 0);
  for (const NamedParameter& p : named_) {
    put(master(p), p, [&](std::span<float> w) {
      const auto n = static_cast<std::int64_t>(w.size());
      if (p.initial.deviation == 0) return std::fill(w.begin(), w.end(), p.initial.mean);
      const std::uint64_t name = fnv1a(p.name);
      for (std::int64_t i = 0; i < n; i += 4) {
        float four[4];
        normals(name, key, i / 4, four);
        for (std::int64_t k = i; k < std::min(n, i + 4); ++k)
          w[static_cast<std::size_t>(k)] = p.initial.mean + p.initial.deviation * four[k - i];
      }
    });
  }
  refresh_storage();
}

void Parameters::allocate_training() {
  if (gradients_) return;
  gradients_ = zeroed<float>(queue_, size_), moment1_ = zeroed<float>(queue_, size_), moment2_ = zeroed<float>(queue_, size_);
  for (Owner& o : owners_) o.parameter.leaf_->gradient = std::shared_ptr<float>(gradients_, gradients_.get() + o.offset);
}

std::vector<std::string> Parameters::freeze(const std::vector<std::string>& globs) {
  std::vector<std::string> idle;
  for (NamedParameter& p : named_) p.frozen = false;
  for (const std::string& glob : globs) {
    bool any = false;
    for (NamedParameter& p : named_) {
      if (matches(glob.c_str(), p.name.c_str())) p.frozen = any = true;
    }
    if (!any) idle.push_back(glob);
  }
  return idle;
}

void Parameters::attach(Tape* tape) {
  for (Owner& o : owners_) o.parameter.leaf_->tape = nullptr;
  for (const NamedParameter& p : named_) {
    if (!p.frozen) owners_[p.owner].parameter.leaf_->tape = tape;
  }
}

void Parameters::zero_gradients() {
  const Measured measured("zero_gradients", queue_, 4.0 * static_cast<double>(size_), 0);
  fill_zero(queue_, gradients_.get(), size_);
}

void Parameters::zero_moments() {
  fill_zero(queue_, moment1_.get(), size_);
  fill_zero(queue_, moment2_.get(), size_);
}

HostNumbers Parameters::numbers(const float* at, const NamedParameter& p) const {
  const auto count = static_cast<std::size_t>(p.shape.count()), bytes = count * sizeof(float);
  if (queue_.device == Device::cpu && !queue_.imagined()) return {{at, count}, {}};
  HostNumbers host{{}, std::vector<float>(count)};
  if (!queue_.imagined()) cuda::download(queue_, host.copy.data(), at, {bytes, 1, bytes, bytes});
  host.values = host.copy;
  return host;
}

void Parameters::put(float* at, const NamedParameter& p, const std::function<void(std::span<float>)>& fill) const {
  const auto count = static_cast<std::size_t>(p.shape.count()), bytes = count * sizeof(float);
  if (queue_.imagined()) return;
  if (queue_.device == Device::cpu) return fill({at, count});
  std::vector<float> host(count);
  cuda::download(queue_, host.data(), at, {bytes, 1, bytes, bytes});
  fill(host);
  cuda::upload(queue_, at, host.data(), {bytes, 1, bytes, bytes});
}

void Parameters::refresh_storage() {
  if (!storage_) return;
  const kernels::Convert<float, bf16> all{{master_.get(), size_ / kSlice, kSlice, kSlice},
                                          {storage_.get(), size_ / kSlice, kSlice, kSlice}};
  on(queue_, [&]<Device D>() { kernels::convert<D>(queue_, all); });
}

const NamedParameter* Parameters::find(const std::string& name) const {
  const auto at = std::find_if(named_.begin(), named_.end(), [&](const NamedParameter& p) { return p.name == name; });
  return at == named_.end() ? nullptr : &*at;
}

std::vector<ParameterPlace> Parameters::places() const {
  std::vector<ParameterPlace> places;
  for (std::size_t i = 0; i < owners_.size(); ++i)
    places.push_back({owners_[i].parameter.leaf().get(), owners_[i].offset, i + 1 < owners_.size() ? owners_[i + 1].offset : size_, false});
  for (const NamedParameter& p : named_) places[p.owner].trained |= !p.frozen;
  return places;
}

std::vector<kernels::Segment> Parameters::segments(float decay) const {
  std::vector<kernels::Segment> table;
  for (std::size_t i = 0; i < named_.size(); ++i) {
    const NamedParameter& p = named_[i];
    const std::int64_t end = i + 1 < named_.size() ? named_[i + 1].offset : size_;
    const kernels::Segment s{p.offset, end - p.offset, p.kind == ParameterKind::matrix ? decay : 0.0f, static_cast<std::uint8_t>(p.frozen)};
    if (!table.empty() && table.back().decay == s.decay && table.back().frozen == s.frozen)
      table.back().length += s.length;
    else
      table.push_back(s);
  }
  return table;
}

void Parameters::adamw(float lr, float decay, std::int64_t step, const Tensor& clip_factor) {
  const std::vector<kernels::Segment> table = segments(decay);
  const Measured measured("adamw", queue_, trained(table) * (storage_ ? 30.0 : 28.0), 0);  // three read and written, the gradient read
  const auto run = [&]<class T>(T* storage) {
    kernels::AdamW<T> a;
    a.master = master_.get(), a.moment1 = moment1_.get(), a.moment2 = moment2_.get(), a.gradient = gradients_.get(), a.storage = storage;
    a.segments = table.data(), a.count = static_cast<std::int64_t>(table.size()), a.clip_factor = clip_factor.data<float>(), a.lr = lr,
    a.step = step;
    on(queue_, [&]<Device D>() { kernels::adamw<D>(queue_, a); });
  };
  if (storage_)
    run(storage_.get());
  else
    run(static_cast<float*>(nullptr));
}

void Parameters::gradient_norm(float clip, const Tensor& norm, const Tensor& clip_factor) const {
  const std::vector<kernels::Segment> table = segments(0);
  const Measured measured("gradient_norm", queue_, trained(table) * 4.0, 0);
  const kernels::GradientNorm a{gradients_.get(),         table.data(), static_cast<std::int64_t>(table.size()), clip, norm.data<float>(),
                                clip_factor.data<float>()};
  on(queue_, [&]<Device D>() { kernels::gradient_norm<D>(queue_, a); });
}

}  // namespace lc
