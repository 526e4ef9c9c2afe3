// Schemas of the operators. Pure functions of (inputs, seed); discrete_ops/compiled.py adds fakes, ops.py autograd and
// vmap.
//   logits (..., N), index (...) int64, seed (S) int64, tau_tensor (T): S and T equal groups of rows
//   estimator: a row of reference.TERMS; coefficient: gap, eta or beta; tau is used where tau_tensor is absent
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(discrete_ops, m) {
  m.def("sample(Tensor logits, Tensor seed) -> (Tensor, Tensor)");
  m.def(
      "surrogate(Tensor logits, Tensor index, Tensor seed, Tensor? tau_tensor, float tau, int estimator, "
      "float coefficient, int num_samples) -> Tensor");
  m.def(
      "surrogate_vjp(Tensor grad, Tensor logits, Tensor index, Tensor seed, Tensor? tau_tensor, float tau, "
      "int estimator, float coefficient, int num_samples) -> Tensor");
}
