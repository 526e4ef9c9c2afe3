// The kernels' operators, which the libraries of the devices implement.
#include <torch/csrc/stable/library.h>

#include "schemas.h"

STABLE_TORCH_LIBRARY(discrete_ops_kernels, m) {
  DISCRETE_OPS_DEFINE(m)
}
