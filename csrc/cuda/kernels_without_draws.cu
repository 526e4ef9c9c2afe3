// Estimators without draws.
#include "kernels.h"
#include "launch.h"

namespace discrete_ops {
namespace cuda {

Kernel kernel_without_draws(Mode mode, int quads) {
  return with_mode(mode, [&](auto m) {
    if (!quads) return Kernel(surrogate_long<float, decltype(m)::value, Serves::kWithoutDraws>);
    return with_quads(quads, [](auto q) {
      return Kernel(surrogate_registers<float, decltype(q)::value, decltype(m)::value, Serves::kWithoutDraws>);
    });
  });
}

}  // namespace cuda
}  // namespace discrete_ops
