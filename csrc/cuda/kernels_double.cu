// Every estimator in float64.
#include "kernels.h"
#include "launch.h"

namespace discrete_ops {
namespace cuda {

Kernel double_kernel(bool soft, int quads) {
  constexpr Serves kServes = Serves::kAll;
  if (!quads) return soft ? surrogate_long<double, true, kServes> : surrogate_long<double, false, kServes>;
  return soft ? surrogate_registers<double, kDoubleQuads, true, kServes>
              : surrogate_registers<double, kDoubleQuads, false, kServes>;
}

}  // namespace cuda
}  // namespace discrete_ops
