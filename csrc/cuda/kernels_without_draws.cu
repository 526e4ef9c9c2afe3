// Estimators without draws.
#include "kernels.h"
#include "launch.h"

namespace discrete_ops {
namespace cuda {

Kernel kernel_without_draws(bool soft, int quads) {
  constexpr Serves kServes = Serves::kWithoutDraws;
  if (!quads) return soft ? surrogate_long<float, true, kServes> : surrogate_long<float, false, kServes>;
  return with_quads(quads, [&](auto q) {
    return soft ? Kernel(surrogate_registers<float, decltype(q)::value, true, kServes>)
                : Kernel(surrogate_registers<float, decltype(q)::value, false, kServes>);
  });
}

}  // namespace cuda
}  // namespace discrete_ops
