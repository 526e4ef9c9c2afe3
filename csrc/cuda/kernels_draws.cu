// Estimators that draw, rows in registers.
#include "kernels.h"
#include "launch.h"

namespace discrete_ops {
namespace cuda {

Kernel register_kernel_with_draws(bool soft, int quads) {
  return with_quads(quads, [&](auto q) {
    return soft ? Kernel(surrogate_registers<float, decltype(q)::value, true, Serves::kWithDraws>)
                : Kernel(surrogate_registers<float, decltype(q)::value, false, Serves::kWithDraws>);
  });
}

}  // namespace cuda
}  // namespace discrete_ops
