// Draws of winners.
#include "kernels.h"
#include "launch.h"

namespace discrete_ops {
namespace cuda {

Kernel sample_kernel(bool is_double, bool is_long) {
  if (is_double) return is_long ? sample_long<double> : sample_registers<double, kDoubleQuads>;
  return is_long ? sample_long<float> : sample_registers<float, kFloatQuads>;
}

}  // namespace cuda
}  // namespace discrete_ops
