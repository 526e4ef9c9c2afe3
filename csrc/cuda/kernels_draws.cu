// Estimators that draw, rows in registers.
#include "kernels.h"
#include "launch.h"

namespace discrete_ops {
namespace cuda {

Kernel register_kernel_with_draws(bool soft) {
  return soft ? surrogate_registers<float, kFloatQuads, true, Serves::kWithDraws>
              : surrogate_registers<float, kFloatQuads, false, Serves::kWithDraws>;
}

}  // namespace cuda
}  // namespace discrete_ops
