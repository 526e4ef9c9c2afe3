// Estimators that draw, long rows.
#include "kernels.h"
#include "launch.h"

namespace discrete_ops {
namespace cuda {

Kernel long_kernel_with_draws(Mode mode) {
  return with_mode(mode, [](auto m) { return Kernel(surrogate_long<float, decltype(m)::value, Serves::kWithDraws>); });
}

}  // namespace cuda
}  // namespace discrete_ops
