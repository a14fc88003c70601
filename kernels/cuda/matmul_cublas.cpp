// cuBLASLt is large and not on every machine that has a GPU: it is opened when first wanted, and its absence is no error.
#include "kernels/cuda/matmul_cublas.h"

#include <cublasLt.h>
#include <dlfcn.h>

#include <map>
#include <memory>
#include <mutex>
#include <tuple>

#include "kernels/cuda/device.h"

namespace lc::cuda {
namespace {

constexpr std::size_t kWorkspace = std::size_t{32} << 20;  // bytes, one per stream
constexpr std::uint32_t kAlignment = 16;                   // of matrices and their rows: what an algorithm is chosen for, and what it gets

struct Library {
  Library() {
    for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12"}) {
      if (void* const library = dlopen(name, RTLD_NOW | RTLD_LOCAL); library && find_all(library)) return;
    }
    create = nullptr;
  }
  bool find_all(void* library) {
    const auto find = [library]<class F>(F*& f, const char* name) { return (f = reinterpret_cast<F*>(dlsym(library, name))) != nullptr; };
    return find(create, "cublasLtCreate") && find(describe, "cublasLtMatmulDescCreate") && find(forget, "cublasLtMatmulDescDestroy") &&
           find(set, "cublasLtMatmulDescSetAttribute") && find(lay_out, "cublasLtMatrixLayoutCreate") &&
           find(drop, "cublasLtMatrixLayoutDestroy") && find(prefer, "cublasLtMatmulPreferenceCreate") &&
           find(unprefer, "cublasLtMatmulPreferenceDestroy") && find(set_preference, "cublasLtMatmulPreferenceSetAttribute") &&
           find(choose, "cublasLtMatmulAlgoGetHeuristic") && find(multiply, "cublasLtMatmul");
  }
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtMatmulDescCreate) describe = nullptr;
  decltype(&cublasLtMatmulDescDestroy) forget = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) set = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) lay_out = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) drop = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) prefer = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) unprefer = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) set_preference = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) choose = nullptr;
  decltype(&cublasLtMatmul) multiply = nullptr;
};
const Library& library() {
  static const Library found;
  return found;
}

cudaDataType_t type_of(DType type) { return type == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F; }

// The library counts columns first: cᵀ (n, m) = op(b)ᵀ · op(a)ᵀ, each stored matrix read as its transpose.
class Layouts {
 public:
  explicit Layouts(const CublasProduct& p) {
    const bool b_turned = p.turn_b == Turn::transpose, a_turned = p.turn_a == Turn::transpose;
    known_ = lay_out(left, p.in, b_turned ? p.k : p.n, b_turned ? p.n : p.k, p.b_stride) &&
             lay_out(right, p.in, a_turned ? p.m : p.k, a_turned ? p.k : p.m, p.a_stride) && lay_out(result, p.out, p.n, p.m, p.c_stride);
  }
  Layouts(const Layouts&) = delete;
  Layouts& operator=(const Layouts&) = delete;
  ~Layouts() {
    for (const cublasLtMatrixLayout_t layout : {left, right, result}) {
      if (layout) library().drop(layout);
    }
  }
  explicit operator bool() const { return known_; }
  cublasLtMatrixLayout_t left = nullptr, right = nullptr, result = nullptr;

 private:
  static bool lay_out(cublasLtMatrixLayout_t& to, DType type, std::int64_t rows, std::int64_t columns, std::int64_t stride) {
    return library().lay_out(&to, type_of(type), static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(columns), stride) ==
           CUBLAS_STATUS_SUCCESS;
  }
  bool known_ = false;
};

// The algorithm for products of one kind. Numbers of tokens are rounded up to a multiple of kTokens for it, so that there are few kinds,
// and so that the choice, and with it every bit, depends on the shape alone and not on what came before.
class Plan {
 public:
  static constexpr std::int64_t kTokens = 64;
  static CublasProduct kind_of(CublasProduct p) {
    std::int64_t& tokens = p.turn_a == Turn::transpose ? p.k : p.m;
    tokens = (tokens + kTokens - 1) / kTokens * kTokens;
    return p;
  }
  Plan(cublasLtHandle_t handle, const CublasProduct& kind) : lt_(library()) {
    const cublasOperation_t op_b = kind.turn_b == Turn::transpose ? CUBLAS_OP_T : CUBLAS_OP_N,
                            op_a = kind.turn_a == Turn::transpose ? CUBLAS_OP_T : CUBLAS_OP_N;
    usable_ = lt_.describe(&product_, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS && set(CUBLASLT_MATMUL_DESC_TRANSA, op_b) &&
              set(CUBLASLT_MATMUL_DESC_TRANSB, op_a) && set_epilogue(kind) && choose(handle, kind);
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
  ~Plan() {
    if (product_) lt_.forget(product_);
  }

  bool run(cublasLtHandle_t handle, const CublasProduct& p, const Queue& queue, void* workspace) {
    if (!usable_ || (p.bias && !set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias))) return false;
    const Layouts at(p);
    const float one = 1, kept = p.into == kernels::Into::add ? 1.0f : 0.0f;
    return at && lt_.multiply(handle, product_, &one, p.b, at.left, p.a, at.right, &kept, p.c, at.result, p.c, at.result, &algorithm_,
                              workspace, kWorkspace, static_cast<cudaStream_t>(queue.stream)) == CUBLAS_STATUS_SUCCESS;
  }

 private:
  template <class T>
  bool set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    return lt_.set(product_, attribute, &value, sizeof value) == CUBLAS_STATUS_SUCCESS;
  }
  bool set_epilogue(const CublasProduct& kind) {
    const bool relu = kind.activation == kernels::Activation::relu;
    if (!kind.bias) return !relu || set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_RELU);
    const cudaDataType_t type = type_of(kind.out);
    return set(CUBLASLT_MATMUL_DESC_EPILOGUE, relu ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_BIAS) &&
           set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type) && set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, kind.bias);
  }
  bool choose(cublasLtHandle_t handle, const CublasProduct& kind) {
    const Layouts at(kind);
    cublasLtMatmulPreference_t preference = nullptr;
    if (!at || lt_.prefer(&preference) != CUBLAS_STATUS_SUCCESS) return false;
    cublasLtMatmulHeuristicResult_t best{};
    int found = 0;
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
      return lt_.set_preference(preference, attribute, &value, sizeof value) == CUBLAS_STATUS_SUCCESS;
    };
    const bool chosen =
        prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspace) && prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, kAlignment) &&
        prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, kAlignment) && prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, kAlignment) &&
        prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, kAlignment) &&
        lt_.choose(handle, product_, at.left, at.right, at.result, at.result, preference, 1, &best, &found) == CUBLAS_STATUS_SUCCESS &&
        found > 0;
    lt_.unprefer(preference);
    algorithm_ = best.algo;
    return chosen;
  }
  const Library& lt_;
  cublasLtMatmulDesc_t product_ = nullptr;
  cublasLtMatmulAlgo_t algorithm_{};
  bool usable_ = false;
};

// Of one device and stream. Alive until the process ends, as the driver may be gone before static objects are.
class Handle {
 public:
  explicit Handle(const Queue& queue) : queue_(queue) {
    if (!library().create || library().create(&handle_) != CUBLAS_STATUS_SUCCESS) handle_ = nullptr;
    if (handle_) workspace_ = allocate(queue, kWorkspace);
  }
  bool run(const CublasProduct& p) {
    if (!workspace_) return false;
    const CublasProduct k = Plan::kind_of(p);
    const Key key{k.in,         k.out, k.m, k.n, k.k, k.a_stride, k.b_stride, k.c_stride, k.turn_a, k.turn_b, k.bias != nullptr,
                  k.activation, k.into};
    auto& plan = plans_[key];
    if (!plan) plan = std::make_unique<Plan>(handle_, k);
    return plan->run(handle_, p, queue_, workspace_);
  }

 private:
  using Key = std::tuple<DType, DType, std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t, Turn, Turn, bool,
                         kernels::Activation, kernels::Into>;
  const Queue queue_;
  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  std::map<Key, std::unique_ptr<Plan>> plans_;
};

}  // namespace

bool cublas_product(const Queue& queue, const CublasProduct& p) {
  const auto aligned = [](const void* matrix, std::int64_t stride, DType type) {
    return reinterpret_cast<std::uintptr_t>(matrix) % kAlignment == 0 && static_cast<std::size_t>(stride) * size_of(type) % kAlignment == 0;
  };
  const bool suits =
      aligned(p.a, p.a_stride, p.in) && aligned(p.b, p.b_stride, p.in) && aligned(p.c, p.c_stride, p.out) && aligned(p.bias, 0, p.out);
  if (!suits || p.m == 0 || p.n == 0 || p.k == 0) return false;
  static std::mutex mutex;
  static auto& handles = *new std::map<std::pair<int, void*>, Handle>;
  const std::lock_guard lock(mutex);
  return handles.try_emplace({queue.index, queue.stream}, queue).first->second.run(p);
}

}  // namespace lc::cuda
