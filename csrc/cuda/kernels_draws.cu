// Estimators that draw, rows in registers.
#include "kernels.h"
#include "launch.h"

namespace discrete_ops {
namespace cuda {

Kernel register_kernel_with_draws(Mode mode, int quads) {
  return with_mode(mode, [&](auto m) {
    return with_quads(quads, [](auto q) {
      return Kernel(surrogate_registers<float, decltype(q)::value, decltype(m)::value, Serves::kWithDraws>);
    });
  });
}

}  // namespace cuda
}  // namespace discrete_ops
