// Estimators without draws.
#include "kernels.h"
#include "launch.h"

namespace discrete_ops {
namespace cuda {

Kernel kernel_without_draws(bool soft, bool is_long) {
  constexpr Serves kServes = Serves::kWithoutDraws;
  if (is_long) return soft ? surrogate_long<float, true, kServes> : surrogate_long<float, false, kServes>;
  return soft ? surrogate_registers<float, kFloatQuads, true, kServes>
              : surrogate_registers<float, kFloatQuads, false, kServes>;
}

}  // namespace cuda
}  // namespace discrete_ops
