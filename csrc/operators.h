// The operators' host side, the same on every device: checks, strides, outputs. On torch's stable ABI.
//
// A Device says where they run:
//   type                  torch's device type of the outputs
//   Call                  a Problem and what else the kernels take
//   set_parameters(call, p, one)  where the kernels read the parameters: p (groups, kParameters) if not null, else one;
//                         returns what must outlive the launch
//   place(x)              a result in memory, before kernels write it
//   check_index(call)     of the index's values, where that costs no synchronisation
//   longest_row(call, total)  of the ragged rows of a tensor of so many elements, whose offsets it checks
//   sample, surrogate     launch the kernels of a call that has rows
#pragma once

#include "torch_check.h"  // before torch's own

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>
#include <vector>

#include "call.h"

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

// A gradient is scaled by this power of 2 while it is pulled back, so that sums over a row of any finite one, and
// differences from its mean, stay finite: weights are at most 1.
inline double grad_scale(int64_t columns) {
  double scale = 0.25;
  for (; columns; columns /= 2) scale /= 2;
  return scale;
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

// Whether so many rows fall into so many groups; no rows into none, too.
inline bool divides(int64_t groups, int64_t rows) {
  return groups >= 1 ? rows % groups == 0 : rows == 0;
}

// In place of a number of draws: tensors have no dimension of them.
constexpr int64_t kNoDraws = 0;

template <class Device>
struct Operators {
  using Call = typename Device::Call;

  // Of the first `dims` of the logits' sizes, behind one of `draws` if there are any.
  static Tensor empty_like(const Tensor& logits, int64_t dims, ScalarType dtype, int64_t draws = kNoDraws) {
    const int64_t* sizes = logits.sizes().data();
    std::vector<int64_t> with_draws;
    if (draws != kNoDraws) {
      with_draws.assign(1, draws);
      with_draws.insert(with_draws.end(), sizes, sizes + dims++);
      sizes = with_draws.data();
    }
    return result(sizes, dims, dtype, logits);
  }

  // On the device of `like`.
  static Tensor result(const int64_t* sizes, int64_t dims, ScalarType dtype, const Tensor& like) {
    const Tensor x = empty(sizes, dims, dtype, Device::type(), like.get_device_index());
    Device::place(x);
    return x;
  }

  // What the operators share; the seed and the parameters are contiguous, and kept by the caller.
  static Call common(Tensor& logits, const Tensor& seed, int64_t first_row) {
    STD_TORCH_CHECK(logits.dim() >= 1 && logits.size(-1) >= 1, "logits: got no category, allowed: one or more");
    Call call{};
    call.columns = logits.size(-1);
    call.rows = logits.numel() / call.columns;
    set_common(call, logits, seed, first_row);
    return call;
  }

  // The same of ragged rows, whose offsets the caller keeps, too.
  static Call common_of_ragged(Tensor& logits, const Tensor& offsets, const Tensor& seed, int64_t first_row) {
    STD_TORCH_CHECK(logits.dim() == 1, "logits: got ", logits.dim(), " dims, allowed: one, with offsets");
    check_same_device(logits, offsets, "offsets");
    STD_TORCH_CHECK(offsets.scalar_type() == ScalarType::Long && offsets.dim() == 1 && offsets.size(0) >= 1,
                    "offsets: allowed: a (rows + 1,) int64 tensor");
    Call call{};
    call.offsets = static_cast<const int64_t*>(offsets.data_ptr());
    call.rows = offsets.size(0) - 1;
    call.columns = Device::longest_row(call, logits.numel());
    set_common(call, logits, seed, first_row);
    return call;
  }

  static void set_common(Call& call, Tensor& logits, const Tensor& seed, int64_t first_row) {
    STD_TORCH_CHECK(call.columns < (int64_t{1} << 31), "logits: got ", call.columns,
                    " categories, allowed: less than 2**31");
    call.logits = operand(logits, "logits");
    call.draws = 1;
    STD_TORCH_CHECK(seed.scalar_type() == ScalarType::Long && seed.dim() == 1 && divides(seed.size(0), call.rows),
                    "seed: allowed: an (S,) int64 tensor, S a divisor of the number of rows");
    call.seed = static_cast<const int64_t*>(seed.data_ptr());
    call.seeds = seed.size(0);
    STD_TORCH_CHECK(first_row >= 0, "first_row: got ", first_row, ", allowed: 0 or more");
    call.first_row = first_row;
  }

  // The estimator and what is added to its number. Rows of binary variables get their second column here.
  static void set_spec(Call& call, int64_t estimator, int64_t num_samples) {
    const bool all_draws = estimator == (kBinary | kGumbelRao) && num_samples == kAllDraws;
    STD_TORCH_CHECK(all_draws || (num_samples >= 1 && num_samples < (int64_t{1} << 31)), "num_samples: got ",
                    num_samples, ", allowed: 1 to 2**31 - 1");
    STD_TORCH_CHECK(read_spec(estimator, num_samples, call.spec), "estimator: got ", estimator, ", allowed: 0 to ",
                    kNumEstimators - 1, ", ", kStratified, " more of one that takes draws, ", kBinary,
                    " more of binary variables");
    if (!call.spec.binary) return;
    STD_TORCH_CHECK(!call.offsets, "estimator: got ", estimator, ", allowed with offsets: none of binary variables");
    STD_TORCH_CHECK(call.columns == 1, "logits: got ", call.columns, " categories, allowed: one, of binary variables");
    call.columns = 2;
  }

  static void set_draws(Call& call, int64_t num_draws) {
    STD_TORCH_CHECK(num_draws >= 0 && num_draws < (int64_t{1} << 31), "num_draws: got ", num_draws,
                    ", allowed: 1 to 2**31 - 1");
    if (num_draws != kNoDraws) call.draws = num_draws;
  }

  // Where a call's parameters come from: a tensor, or numbers for all rows.
  struct Parameters {
    std::optional<Tensor> tensor;
    double numbers[kParameters];
  };

  static auto set_parameters(Call& call, const Tensor& logits, Parameters& parameters) {
    const double* data = nullptr;
    call.groups = 1;
    if (parameters.tensor) {
      Tensor& x = *parameters.tensor;
      check_same_device(logits, x, "parameters");
      STD_TORCH_CHECK(x.dim() == 2 && x.size(1) == kParameters && divides(x.size(0), call.rows),
                      "parameters: allowed: a (T, 3) tensor, T a divisor of the number of rows");
      STD_TORCH_CHECK(x.scalar_type() == ScalarType::Double, "parameters: got an unsupported dtype, allowed: float64");
      x = dense(x);
      data = static_cast<const double*>(x.data_ptr());
      call.groups = x.size(0);
    }
    return Device::set_parameters(call, data, parameters.numbers);
  }

  static void check_same_device(const Tensor& logits, const Tensor& other, const char* name) {
    STD_TORCH_CHECK(other.device() == logits.device(), name, ": allowed: a tensor on the logits' device");
  }

  static std::tuple<Tensor, Tensor> sample(Tensor logits, Tensor seed) {
    return draw(logits, seed, std::nullopt, 1, kNoDraws, 0, 0);
  }

  static std::tuple<Tensor, Tensor> sample_of_rows(Tensor logits, Tensor seed, std::optional<Tensor> parameters,
                                                   double sample_tau, int64_t first_row, int64_t estimator) {
    return draw(logits, seed, parameters, sample_tau, kNoDraws, first_row, estimator);
  }

  static std::tuple<Tensor, Tensor> sample_many(Tensor logits, Tensor seed, std::optional<Tensor> parameters,
                                                double sample_tau, int64_t num_draws, int64_t first_row,
                                                int64_t estimator) {
    STD_TORCH_CHECK(num_draws != kNoDraws, "num_draws: got 0, allowed: 1 to 2**31 - 1");
    return draw(logits, seed, parameters, sample_tau, num_draws, first_row, estimator);
  }

  static std::tuple<Tensor, Tensor> draw(Tensor logits, Tensor seed, std::optional<Tensor> parameters,
                                         double sample_tau, int64_t num_draws, int64_t first_row, int64_t estimator) {
    check_same_device(logits, seed, "seed");
    seed = dense(seed);
    Call call = common(logits, seed, first_row);
    set_draws(call, num_draws);
    set_spec(call, estimator, 1);
    Tensor out = empty_like(logits, logits.dim(), logits.scalar_type(), num_draws);
    Tensor index = empty_like(logits, logits.dim() - 1, ScalarType::Long, num_draws);
    return run_sample(call, logits, out, index, {parameters, {1, 0, sample_tau}});
  }

  static std::tuple<Tensor, Tensor> sample_ragged(Tensor logits, Tensor offsets, Tensor seed,
                                                  std::optional<Tensor> parameters, double sample_tau,
                                                  int64_t first_row) {
    check_same_device(logits, seed, "seed");
    seed = dense(seed), offsets = dense(offsets);
    Call call = common_of_ragged(logits, offsets, seed, first_row);
    set_spec(call, 0, 1);
    Tensor out = empty_like(logits, logits.dim(), logits.scalar_type());
    Tensor index = result(&call.rows, 1, ScalarType::Long, logits);
    return run_sample(call, logits, out, index, {parameters, {1, 0, sample_tau}});
  }

  static std::tuple<Tensor, Tensor> run_sample(Call& call, const Tensor& logits, Tensor out, Tensor index,
                                               Parameters parameters) {
    [[maybe_unused]] const auto kept = set_parameters(call, logits, parameters);
    call.out = operand(out, "out");
    call.index = static_cast<int64_t*>(index.data_ptr());
    if (call.rows) Device::sample(call, logits);
    return {out, index};
  }

  static Tensor run_surrogate(Mode mode, std::optional<Tensor> grad, Tensor logits, Tensor index, Tensor seed,
                              const Parameters& parameters, int64_t estimator, int64_t num_samples, int64_t first_row,
                              int64_t num_draws = kNoDraws) {
    check_same_device(logits, seed, "seed");
    seed = dense(seed);
    return run_surrogate(common(logits, seed, first_row), mode, grad, logits, index, parameters, estimator, num_samples,
                         num_draws);
  }

  static Tensor run_ragged(Mode mode, std::optional<Tensor> grad, Tensor logits, Tensor offsets, Tensor index,
                           Tensor seed, const Parameters& parameters, int64_t estimator, int64_t num_samples,
                           int64_t first_row) {
    check_same_device(logits, seed, "seed");
    seed = dense(seed), offsets = dense(offsets);
    return run_surrogate(common_of_ragged(logits, offsets, seed, first_row), mode, grad, logits, index, parameters,
                         estimator, num_samples);
  }

  static Tensor run_surrogate(Call call, Mode mode, std::optional<Tensor> grad, const Tensor& logits, Tensor index,
                              Parameters parameters, int64_t estimator, int64_t num_samples,
                              int64_t num_draws = kNoDraws) {
    check_same_device(logits, index, "index");
    index = dense(index);
    set_draws(call, num_draws);
    [[maybe_unused]] const auto kept = set_parameters(call, logits, parameters);
    set_spec(call, estimator, num_samples);
    STD_TORCH_CHECK(index.scalar_type() == ScalarType::Long && index.numel() == call.draws * call.rows,
                    "index: allowed: an int64 tensor with one element a row and draw");
    call.index = static_cast<int64_t*>(index.data_ptr());
    Device::check_index(call);
    call.mode = mode;
    STD_TORCH_CHECK(mode == Mode::kPullBack || has_soft_sample(call.spec.estimator), "estimator: got ", estimator,
                    ", allowed: 0 to 3, which have a soft sample");
    if (grad) {
      check_same_device(logits, *grad, "grad");
      const auto want = logits.sizes(), got = grad->sizes();
      const size_t behind = num_draws == kNoDraws ? 0 : 1;
      bool same = want.size() + behind == got.size() && (!behind || got[0] == num_draws);
      for (size_t d = 0; same && d < want.size(); ++d) same = want[d] == got[d + behind];
      STD_TORCH_CHECK(same, "grad: allowed: a tensor of the logits' shape, behind the draws if there are any");
      call.grad = operand(*grad, "grad");
      call.grad_scale = grad_scale(call.columns * call.draws);
      call.inverse_grad_scale = 1 / call.grad_scale;
      STD_TORCH_CHECK((call.grad.dtype == Dtype::kDouble) == (call.logits.dtype == Dtype::kDouble),
                      "grad: allowed: float64 with float64 logits, and only with them");
    }
    Tensor out = empty_like(logits, logits.dim(), logits.scalar_type());
    call.out = operand(out, "out");
    if (call.rows) Device::surrogate(call, logits);
    return out;
  }

  static Tensor surrogate(Tensor logits, Tensor index, Tensor seed, std::optional<Tensor> parameters, double tau,
                          double coefficient, int64_t estimator, int64_t num_samples, int64_t first_row) {
    return run_surrogate(Mode::kSoft, std::nullopt, logits, index, seed, {parameters, {tau, coefficient, 1}}, estimator,
                         num_samples, first_row);
  }

  static Tensor surrogate_vjp(Tensor grad, Tensor logits, Tensor index, Tensor seed, std::optional<Tensor> parameters,
                              double tau, double coefficient, int64_t estimator, int64_t num_samples,
                              int64_t first_row) {
    return run_surrogate(Mode::kPullBack, grad, logits, index, seed, {parameters, {tau, coefficient, 1}}, estimator,
                         num_samples, first_row);
  }

  static Tensor surrogate_vjp_many(Tensor grad, Tensor logits, Tensor index, Tensor seed,
                                   std::optional<Tensor> parameters, double tau, double coefficient, int64_t estimator,
                                   int64_t num_samples, int64_t first_row) {
    STD_TORCH_CHECK(grad.dim() > 0 && grad.size(0) > 0, "grad: got no draw, allowed: one or more");
    return run_surrogate(Mode::kPullBack, grad, logits, index, seed, {parameters, {tau, coefficient, 1}}, estimator,
                         num_samples, first_row, grad.size(0));
  }

  static Tensor tau_derivative(Tensor logits, Tensor index, Tensor seed, std::optional<Tensor> parameters, double tau,
                               double coefficient, int64_t estimator, int64_t num_samples, int64_t first_row) {
    return run_surrogate(Mode::kTau, std::nullopt, logits, index, seed, {parameters, {tau, coefficient, 1}}, estimator,
                         num_samples, first_row);
  }

  static Tensor surrogate_ragged(Tensor logits, Tensor offsets, Tensor index, Tensor seed,
                                 std::optional<Tensor> parameters, double tau, double coefficient, int64_t estimator,
                                 int64_t num_samples, int64_t first_row) {
    return run_ragged(Mode::kSoft, std::nullopt, logits, offsets, index, seed, {parameters, {tau, coefficient, 1}},
                      estimator, num_samples, first_row);
  }

  static Tensor surrogate_vjp_ragged(Tensor grad, Tensor logits, Tensor offsets, Tensor index, Tensor seed,
                                     std::optional<Tensor> parameters, double tau, double coefficient,
                                     int64_t estimator, int64_t num_samples, int64_t first_row) {
    return run_ragged(Mode::kPullBack, grad, logits, offsets, index, seed, {parameters, {tau, coefficient, 1}},
                      estimator, num_samples, first_row);
  }

  static Tensor tau_derivative_ragged(Tensor logits, Tensor offsets, Tensor index, Tensor seed,
                                      std::optional<Tensor> parameters, double tau, double coefficient,
                                      int64_t estimator, int64_t num_samples, int64_t first_row) {
    return run_ragged(Mode::kTau, std::nullopt, logits, offsets, index, seed, {parameters, {tau, coefficient, 1}},
                      estimator, num_samples, first_row);
  }
};

}  // namespace discrete_ops
