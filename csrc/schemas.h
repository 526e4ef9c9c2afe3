// Schemas of the kernels' operators, once for every library that defines them. Pure functions of (inputs, seed) below
// autograd: discrete_ops/ops.py builds the differentiable operators on them, discrete_ops/compiled.py adds fakes.
//   logits (..., N), index (...) int64, seed (S) int64: S equal groups of rows, which count from first_row
//   parameters (T, 3) float64: tau, coefficient (gap, eta or beta) and sample_tau of T equal groups of rows; where it
//   is absent, the numbers beside it estimator: its number in reference.NUMBERS, of which sample takes kBinary alone
//   ..._ragged: of ragged rows, logits (total), offsets (rows + 1) int64: where each begins, and the last one ends
#pragma once

#ifndef DISCRETE_OPS_KERNELS  // their namespace, which a build can rename
#define DISCRETE_OPS_KERNELS discrete_ops_kernels
#endif
// torch's macros take a name as it is written: these write it.
#define DISCRETE_OPS_LIBRARY(name, m) STABLE_TORCH_LIBRARY(name, m)
#define DISCRETE_OPS_LIBRARY_IMPL(name, key, m) STABLE_TORCH_LIBRARY_IMPL(name, key, m)

#define DISCRETE_OPS_ESTIMATOR                                                                                \
  "Tensor seed, Tensor? parameters, float tau, float coefficient, int estimator, SymInt num_samples, SymInt " \
  "first_row=0"

// Arguments cost a small call more than its arithmetic: the sample of most calls has an overload without them.
#define DISCRETE_OPS_DEFINE(m)                                                                                   \
  m.def("sample(Tensor logits, Tensor seed) -> (Tensor, Tensor)");                                               \
  m.def(                                                                                                         \
      "sample.of_rows(Tensor logits, Tensor seed, Tensor? parameters, float sample_tau, SymInt first_row, "      \
      "int estimator=0) -> (Tensor, Tensor)");                                                                   \
  m.def("surrogate(Tensor logits, Tensor index, " DISCRETE_OPS_ESTIMATOR ") -> Tensor");                         \
  m.def("surrogate_vjp(Tensor grad, Tensor logits, Tensor index, " DISCRETE_OPS_ESTIMATOR ") -> Tensor");        \
  m.def("tau_derivative(Tensor logits, Tensor index, " DISCRETE_OPS_ESTIMATOR ") -> Tensor");                    \
  m.def(                                                                                                         \
      "sample_many(Tensor logits, Tensor seed, Tensor? parameters, float sample_tau, SymInt num_draws, "         \
      "SymInt first_row, int estimator) -> (Tensor, Tensor)");                                                   \
  m.def("surrogate_vjp_many(Tensor grad, Tensor logits, Tensor index, " DISCRETE_OPS_ESTIMATOR ") -> Tensor");   \
  m.def(                                                                                                         \
      "sample_ragged(Tensor logits, Tensor offsets, Tensor seed, Tensor? parameters, float sample_tau, "         \
      "SymInt first_row) -> (Tensor, Tensor)");                                                                  \
  m.def("surrogate_ragged(Tensor logits, Tensor offsets, Tensor index, " DISCRETE_OPS_ESTIMATOR ") -> Tensor");  \
  m.def("surrogate_vjp_ragged(Tensor grad, Tensor logits, Tensor offsets, Tensor index, " DISCRETE_OPS_ESTIMATOR \
        ") -> Tensor");                                                                                          \
  m.def("tau_derivative_ragged(Tensor logits, Tensor offsets, Tensor index, " DISCRETE_OPS_ESTIMATOR ") -> Tensor");

#define DISCRETE_OPS_IMPLEMENT(m, On)                       \
  m.impl("sample", TORCH_BOX(&On::sample));                 \
  m.impl("sample.of_rows", TORCH_BOX(&On::sample_of_rows)); \
  m.impl("surrogate", TORCH_BOX(&On::surrogate));           \
  m.impl("surrogate_vjp", TORCH_BOX(&On::surrogate_vjp));   \
  m.impl("tau_derivative", TORCH_BOX(&On::tau_derivative));

// Of a device whose kernels draw each row several times: sample (R, ..., N), index (R, ...), grad as the sample.
#define DISCRETE_OPS_IMPLEMENT_MANY(m, On)            \
  m.impl("sample_many", TORCH_BOX(&On::sample_many)); \
  m.impl("surrogate_vjp_many", TORCH_BOX(&On::surrogate_vjp_many));

// Of ragged rows, on devices that have them.
#define DISCRETE_OPS_IMPLEMENT_RAGGED(m, On)                            \
  m.impl("sample_ragged", TORCH_BOX(&On::sample_ragged));               \
  m.impl("surrogate_ragged", TORCH_BOX(&On::surrogate_ragged));         \
  m.impl("surrogate_vjp_ragged", TORCH_BOX(&On::surrogate_vjp_ragged)); \
  m.impl("tau_derivative_ragged", TORCH_BOX(&On::tau_derivative_ragged));
