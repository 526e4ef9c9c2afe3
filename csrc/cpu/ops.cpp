// The operators on CPU: tensors in, row kernels over threads, tensors out.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdlib>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "kernels.h"

namespace discrete_ops {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// The best instruction set of this processor, or a lesser one that DISCRETE_OPS_CPU names (for tests).
const Kernels& kernels() {
  static const Kernels* const chosen = [] {
    std::vector<const Kernels*> supported;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")) {
      supported.push_back(avx512_kernels());
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
      supported.push_back(avx2_kernels());
    }
#endif
    supported.push_back(baseline_kernels());
    const char* const wish = std::getenv("DISCRETE_OPS_CPU");
    for (const Kernels* k : supported) {
      if (wish && std::string(wish) == k->name) return k;
    }
    return supported.front();
  }();
  return *chosen;
}

Dtype dtype_of(const Tensor& x, const char* name) {
  switch (x.scalar_type()) {
    case ScalarType::Double:
      return Dtype::kDouble;
    case ScalarType::Float:
      return Dtype::kFloat;
    case ScalarType::Half:
      return Dtype::kHalf;
    case ScalarType::BFloat16:
      return Dtype::kBFloat16;
    default:
      STD_TORCH_CHECK(false, name, ": got an unsupported dtype, allowed: float64, float32, float16, bfloat16");
  }
}

// Reads x in place; x becomes a contiguous copy where its dimensions merge into more than an Operand holds.
Operand operand(Tensor& x, const char* name) {
  Operand o{};
  o.data = x.data_ptr();
  o.dtype = dtype_of(x, name);
  const auto sizes = x.sizes(), strides = x.strides();
  const int last = static_cast<int>(sizes.size()) - 1;
  o.column_stride = strides[last];
  for (int d = 0; d < last; ++d) {
    if (sizes[d] == 1) continue;
    if (o.dims && o.strides[o.dims - 1] == strides[d] * sizes[d]) {
      o.sizes[o.dims - 1] *= sizes[d];
      o.strides[o.dims - 1] = strides[d];
      continue;
    }
    if (o.dims == Operand::kMaxDims) {
      x = torch::stable::contiguous(x);
      return operand(x, name);
    }
    o.sizes[o.dims] = sizes[d];
    o.strides[o.dims++] = strides[d];
  }
  return o;
}

Tensor empty(const int64_t* sizes, int64_t dims, ScalarType dtype) {
  std::vector<int64_t> strides(static_cast<size_t>(dims));
  int64_t stride = 1;
  for (int64_t d = dims - 1; d >= 0; --d) {
    strides[static_cast<size_t>(d)] = stride;
    stride *= sizes[d];
  }
  AtenTensorHandle handle = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(dims, sizes, strides.data(), static_cast<int32_t>(dtype),
                                                         aoti_torch_device_type_cpu(), 0, &handle));
  return Tensor(handle);
}

void team(int64_t begin, int64_t end, int64_t grain, Body body, void* context) {
  STABLE_TORCH_ERROR_CODE_CHECK(torch_parallel_for(begin, end, grain, body, context));
}

using Kernel = void (*)(const Call&, int64_t, int64_t);

// `cost` is the work per element in units of one exponential.
void launch(Kernel kernel, Call& call, double cost) {
  constexpr double kGrain = 16384;  // exponentials that are worth a thread
  if (call.rows == 0) return;
  const int64_t units = kernels().units(call);
  const double work = static_cast<double>(call.rows) * static_cast<double>(call.columns) * cost;
  const auto threads = static_cast<int64_t>(torch::stable::get_num_threads());
  if (threads == 1 || work < 2 * kGrain) {
    kernel(call, 0, units);
  } else if (units < threads && call.columns > kShortRow) {
    call.team = team;
    kernel(call, 0, units);
  } else {
    const auto grain = static_cast<int64_t>(kGrain * static_cast<double>(units) / work);
    torch::stable::parallel_for(0, units, grain < 1 ? 1 : grain,
                                [&](int64_t begin, int64_t end) { kernel(call, begin, end); });
  }
}

Tensor dense(Tensor x) {
  return x.is_contiguous() ? x : torch::stable::contiguous(x);
}

// What the three operators share; the seed is contiguous.
Call common(Tensor& logits, const Tensor& seed) {
  STD_TORCH_CHECK(logits.dim() >= 1 && logits.size(-1) >= 1, "logits: got no category, allowed: one or more");
  STD_TORCH_CHECK(logits.size(-1) < (int64_t{1} << 31), "logits: got ", logits.size(-1),
                  " categories, allowed: less than 2**31");
  Call call{};
  call.logits = operand(logits, "logits");
  call.columns = logits.size(-1);
  call.rows = logits.numel() / call.columns;
  STD_TORCH_CHECK(
      seed.scalar_type() == ScalarType::Long && seed.dim() == 1 && seed.size(0) >= 1 && call.rows % seed.size(0) == 0,
      "seed: allowed: an (S,) int64 tensor, S a divisor of the number of rows");
  call.seed = static_cast<const int64_t*>(seed.data_ptr());
  call.seeds = seed.size(0);
  return call;
}

std::vector<double> read_tau(const std::optional<Tensor>& tensor, double tau, int64_t rows) {
  // A bad temperature shows; float32 holds the inverse of every good one.
  const auto checked = [](double x) { return x >= 0x1p-126 && x <= 0x1p126 ? x : __builtin_nan(""); };
  if (!tensor) return {checked(tau)};
  STD_TORCH_CHECK(tensor->dim() == 1 && tensor->size(0) >= 1 && rows % tensor->size(0) == 0,
                  "tau: allowed: a (T,) tensor, T a divisor of the number of rows");
  std::vector<double> values;
  const int64_t stride = tensor->stride(0);
  for (int64_t i = 0; i < tensor->size(0); ++i) {
    double value = 0;
    switch (tensor->scalar_type()) {
      case ScalarType::Double:
        value = static_cast<const double*>(tensor->data_ptr())[i * stride];
        break;
      case ScalarType::Float:
        value = static_cast<const float*>(tensor->data_ptr())[i * stride];
        break;
      default:
        STD_TORCH_CHECK(false, "tau: got an unsupported dtype, allowed: float64, float32");
    }
    values.push_back(checked(value));
  }
  return values;
}

std::tuple<Tensor, Tensor> sample(Tensor logits, Tensor seed) {
  seed = dense(seed);
  Call call = common(logits, seed);
  const auto sizes = logits.sizes();
  Tensor out = empty(sizes.data(), logits.dim(), logits.scalar_type());
  Tensor index = empty(sizes.data(), logits.dim() - 1, ScalarType::Long);
  call.out = operand(out, "out");
  call.index = static_cast<int64_t*>(index.data_ptr());
  launch(kernels().sample, call, 1.5);
  return {out, index};
}

Tensor run_surrogate(std::optional<Tensor> grad, Tensor logits, Tensor index, Tensor seed,
                     const std::optional<Tensor>& tau_tensor, double tau, int64_t estimator, double coefficient,
                     int64_t num_samples) {
  seed = dense(seed), index = dense(index);
  Call call = common(logits, seed);
  STD_TORCH_CHECK(estimator >= 0 && estimator < kNumEstimators, "estimator: got ", estimator, ", allowed: 0 to ",
                  kNumEstimators - 1);
  STD_TORCH_CHECK(num_samples >= 1 && num_samples < (int64_t{1} << 31), "num_samples: got ", num_samples,
                  ", allowed: 1 to 2**31 - 1");
  STD_TORCH_CHECK(index.scalar_type() == ScalarType::Long && index.numel() == call.rows,
                  "index: allowed: an int64 tensor with one element a row");
  const std::vector<double> taus = read_tau(tau_tensor, tau, call.rows);
  call.tau = taus.data();
  call.taus = static_cast<int64_t>(taus.size());
  call.index = static_cast<int64_t*>(index.data_ptr());
  for (int64_t row = 0; row < call.rows; ++row) {
    STD_TORCH_CHECK(call.index[row] >= -1 && call.index[row] < call.columns, "index: got ", call.index[row], " in row ",
                    row, ", allowed: -1 to ", call.columns - 1);
  }
  call.spec = {static_cast<Estimator>(estimator), coefficient, num_samples};
  call.soft = !grad;
  if (grad) {
    const auto want = logits.sizes(), got = grad->sizes();
    bool same = want.size() == got.size();
    for (size_t d = 0; same && d < want.size(); ++d) same = want[d] == got[d];
    STD_TORCH_CHECK(same, "grad: allowed: a tensor of the logits' shape");
    call.grad = operand(*grad, "grad");
  }
  Tensor out = empty(logits.sizes().data(), logits.dim(), logits.scalar_type());
  call.out = operand(out, "out");
  launch(kernels().surrogate, call, takes_draws(call.spec.estimator) ? 4.0 * static_cast<double>(num_samples) + 2 : 2);
  return out;
}

Tensor surrogate(Tensor logits, Tensor index, Tensor seed, std::optional<Tensor> tau_tensor, double tau,
                 int64_t estimator, double coefficient, int64_t num_samples) {
  return run_surrogate(std::nullopt, logits, index, seed, tau_tensor, tau, estimator, coefficient, num_samples);
}

Tensor surrogate_vjp(Tensor grad, Tensor logits, Tensor index, Tensor seed, std::optional<Tensor> tau_tensor,
                     double tau, int64_t estimator, double coefficient, int64_t num_samples) {
  return run_surrogate(grad, logits, index, seed, tau_tensor, tau, estimator, coefficient, num_samples);
}

}  // namespace
}  // namespace discrete_ops

#define DISCRETE_OPS_EXPORT extern "C" __attribute__((visibility("default")))

// For build_info() and the tests, through ctypes.
DISCRETE_OPS_EXPORT const char* discrete_ops_instruction_set() {
  return discrete_ops::kernels().name;
}
DISCRETE_OPS_EXPORT void discrete_ops_math(char function, const float* x, float* y, int64_t n) {
  discrete_ops::kernels().math(function, x, y, n);
}

STABLE_TORCH_LIBRARY_IMPL(discrete_ops, CPU, m) {
  m.impl("sample", TORCH_BOX(&discrete_ops::sample));
  m.impl("surrogate", TORCH_BOX(&discrete_ops::surrogate));
  m.impl("surrogate_vjp", TORCH_BOX(&discrete_ops::surrogate_vjp));
}
