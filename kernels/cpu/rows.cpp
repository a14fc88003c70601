// Rows by index. rows_add sums the rows of one target in the order of i, in float, and rounds once, whatever the number of threads.
#include <cstring>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/simd.h"
#include "kernels/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rows.cpp"
#include <hwy/foreach_target.h>
// after foreach_target
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lc::kernels::HWY_NAMESPACE {

// y = (y +) the named rows in order; without names 0.
template <class T>
void add_rows(const Rows<const T>& rows, const std::int32_t* names, std::int64_t count, T* y, Into into) {
  for_columns(rows.columns, [&](std::int64_t c, std::int64_t n) HWY_ATTR {
    V total = into == Into::add ? load(y + c, n) : hn::Zero(F());
    for (std::int64_t i = 0; i < count; ++i) total = hn::Add(total, load(rows.row(names[i]) + c, n));
    store(total, y + c, n);
  });
}
void add_rows_f32(const Rows<const float>& rows, const std::int32_t* names, std::int64_t count, float* y, Into into) {
  add_rows(rows, names, count, y, into);
}
void add_rows_bf16(const Rows<const bf16>& rows, const std::int32_t* names, std::int64_t count, bf16* y, Into into) {
  add_rows(rows, names, count, y, into);
}

}  // namespace lc::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lc::kernels {
namespace {
HWY_EXPORT(add_rows_f32);
HWY_EXPORT(add_rows_bf16);

constexpr std::int64_t kRows = 64;  // per chunk

template <class T>
void take(const RowsTake<T>& a) {
  parallel_for(a.y.rows, kRows, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    for (std::int64_t i = begin; i < end; ++i)
      std::memcpy(a.y.row(i), a.x.row(a.index[i]), static_cast<std::size_t>(a.y.columns) * sizeof(T));
  });
}

// Counting sort by target: the rows of target t are names[first[t] … first[t+1]), ascending.
struct ByTarget {
  std::vector<std::int32_t> first, names;
  ByTarget(const std::int32_t* index, std::int64_t n, std::int64_t targets)
      : first(static_cast<std::size_t>(targets) + 1), names(static_cast<std::size_t>(n)) {
    for (std::int64_t i = 0; i < n; ++i) ++first[static_cast<std::size_t>(index[i]) + 1];
    for (std::size_t t = 1; t < first.size(); ++t) first[t] += first[t - 1];
    std::vector<std::int32_t> next(first.begin(), first.end() - 1);
    for (std::int64_t i = 0; i < n; ++i)
      names[static_cast<std::size_t>(next[static_cast<std::size_t>(index[i])]++)] = static_cast<std::int32_t>(i);
  }
};

template <class T, class F>
void add_with(F add, const RowsAdd<T>& a) {
  const Rows<T>& x = a.x.to;
  if (x.rows == 0) return;
  const ByTarget by(a.index, a.rows.rows, x.rows);
  parallel_for(x.rows, kRows, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int32_t first = by.first[static_cast<std::size_t>(t)], count = by.first[static_cast<std::size_t>(t) + 1] - first;
      if (count == 0 && a.x.into == Into::add) continue;
      add(a.rows, by.names.data() + first, count, x.row(t), a.x.into);
    }
  });
}
}  // namespace

template <>
void rows_take<Device::cpu, float>(Queue, const RowsTake<float>& a) {
  take(a);
}
template <>
void rows_take<Device::cpu, bf16>(Queue, const RowsTake<bf16>& a) {
  take(a);
}
template <>
void rows_add<Device::cpu, float>(Queue, const RowsAdd<float>& a) {
  add_with(HWY_DYNAMIC_DISPATCH(add_rows_f32), a);
}
template <>
void rows_add<Device::cpu, bf16>(Queue, const RowsAdd<bf16>& a) {
  add_with(HWY_DYNAMIC_DISPATCH(add_rows_bf16), a);
}

}  // namespace lc::kernels
#endif
