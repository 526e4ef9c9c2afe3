// The kernels' operators, which the libraries of the devices implement.
#include <torch/csrc/stable/library.h>

#include "schemas.h"

DISCRETE_OPS_LIBRARY(DISCRETE_OPS_KERNELS, m) {
  DISCRETE_OPS_DEFINE(m)
}
