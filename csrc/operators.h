// The operators' host side, the same on every device: checks, strides, outputs. On torch's stable ABI.
//
// A Device says where they run:
//   type                  torch's device type of the outputs
//   Call                  a Problem and what else the kernels take
//   set_tau(call, t, tau) where the kernels read the temperatures: t (taus) if not null, else tau; returns what must
//                         outlive the launch
//   check_index(call)     of the index's values, where that costs no synchronisation
//   sample, surrogate     launch the kernels of a call that has rows
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>
#include <vector>

#include "call.h"
#include "torch_check.h"

namespace discrete_ops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline Dtype dtype_of(const Tensor& x, const char* name) {
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
inline Operand operand(Tensor& x, const char* name) {
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

inline Tensor dense(Tensor x) {
  return x.is_contiguous() ? x : torch::stable::contiguous(x);
}

inline Tensor empty(const int64_t* sizes, int64_t dims, ScalarType dtype, int32_t device_type, int32_t device) {
  std::vector<int64_t> strides(static_cast<size_t>(dims));
  int64_t stride = 1;
  for (int64_t d = dims - 1; d >= 0; --d) {
    strides[static_cast<size_t>(d)] = stride;
    stride *= sizes[d];
  }
  AtenTensorHandle handle = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(dims, sizes, strides.data(), static_cast<int32_t>(dtype), device_type, device, &handle));
  return Tensor(handle);
}

template <class Device>
struct Operators {
  using Call = typename Device::Call;

  static Tensor empty_like(const Tensor& logits, int64_t dims, ScalarType dtype) {
    return empty(logits.sizes().data(), dims, dtype, Device::type(), logits.get_device_index());
  }

  // What the three operators share; the seed is contiguous.
  static Call common(Tensor& logits, const Tensor& seed) {
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

  static void check_same_device(const Tensor& logits, const Tensor& other, const char* name) {
    STD_TORCH_CHECK(other.device() == logits.device(), name, ": allowed: a tensor on the logits' device");
  }

  static std::tuple<Tensor, Tensor> sample(Tensor logits, Tensor seed) {
    check_same_device(logits, seed, "seed");
    seed = dense(seed);
    Call call = common(logits, seed);
    Tensor out = empty_like(logits, logits.dim(), logits.scalar_type());
    Tensor index = empty_like(logits, logits.dim() - 1, ScalarType::Long);
    call.out = operand(out, "out");
    call.index = static_cast<int64_t*>(index.data_ptr());
    if (call.rows) Device::sample(call, logits);
    return {out, index};
  }

  static Tensor run_surrogate(std::optional<Tensor> grad, Tensor logits, Tensor index, Tensor seed,
                              const std::optional<Tensor>& tau_tensor, double tau, int64_t estimator,
                              double coefficient, int64_t num_samples) {
    check_same_device(logits, seed, "seed");
    check_same_device(logits, index, "index");
    seed = dense(seed), index = dense(index);
    Call call = common(logits, seed);
    STD_TORCH_CHECK(estimator >= 0 && estimator < kNumEstimators, "estimator: got ", estimator, ", allowed: 0 to ",
                    kNumEstimators - 1);
    STD_TORCH_CHECK(num_samples >= 1 && num_samples < (int64_t{1} << 31), "num_samples: got ", num_samples,
                    ", allowed: 1 to 2**31 - 1");
    STD_TORCH_CHECK(index.scalar_type() == ScalarType::Long && index.numel() == call.rows,
                    "index: allowed: an int64 tensor with one element a row");
    if (tau_tensor) {
      check_same_device(logits, *tau_tensor, "tau");
      STD_TORCH_CHECK(tau_tensor->dim() == 1 && tau_tensor->size(0) >= 1 && call.rows % tau_tensor->size(0) == 0,
                      "tau: allowed: a (T,) tensor, T a divisor of the number of rows");
      STD_TORCH_CHECK(tau_tensor->scalar_type() == ScalarType::Double,
                      "tau: got an unsupported dtype, allowed: float64");
    }
    const Tensor taus = tau_tensor ? dense(*tau_tensor) : seed;
    call.taus = tau_tensor ? taus.size(0) : 1;
    [[maybe_unused]] const auto kept =
        Device::set_tau(call, tau_tensor ? static_cast<const double*>(taus.data_ptr()) : nullptr, tau);
    call.index = static_cast<int64_t*>(index.data_ptr());
    Device::check_index(call);
    call.spec = {static_cast<Estimator>(estimator), coefficient, num_samples};
    call.soft = !grad;
    if (grad) {
      check_same_device(logits, *grad, "grad");
      const auto want = logits.sizes(), got = grad->sizes();
      bool same = want.size() == got.size();
      for (size_t d = 0; same && d < want.size(); ++d) same = want[d] == got[d];
      STD_TORCH_CHECK(same, "grad: allowed: a tensor of the logits' shape");
      call.grad = operand(*grad, "grad");
      STD_TORCH_CHECK((call.grad.dtype == Dtype::kDouble) == (call.logits.dtype == Dtype::kDouble),
                      "grad: allowed: float64 with float64 logits, and only with them");
    }
    Tensor out = empty_like(logits, logits.dim(), logits.scalar_type());
    call.out = operand(out, "out");
    if (call.rows) Device::surrogate(call, logits);
    return out;
  }

  static Tensor surrogate(Tensor logits, Tensor index, Tensor seed, std::optional<Tensor> tau_tensor, double tau,
                          int64_t estimator, double coefficient, int64_t num_samples) {
    return run_surrogate(std::nullopt, logits, index, seed, tau_tensor, tau, estimator, coefficient, num_samples);
  }

  static Tensor surrogate_vjp(Tensor grad, Tensor logits, Tensor index, Tensor seed, std::optional<Tensor> tau_tensor,
                              double tau, int64_t estimator, double coefficient, int64_t num_samples) {
    return run_surrogate(grad, logits, index, seed, tau_tensor, tau, estimator, coefficient, num_samples);
  }
};

}  // namespace discrete_ops
