// Estimators that draw, long rows.
#include "kernels.h"
#include "launch.h"

namespace discrete_ops {
namespace cuda {

Kernel long_kernel_with_draws(bool soft) {
  return soft ? surrogate_long<float, true, Serves::kWithDraws> : surrogate_long<float, false, Serves::kWithDraws>;
}

}  // namespace cuda
}  // namespace discrete_ops
