// Every estimator in float64.
#include "kernels.h"
#include "launch.h"

namespace discrete_ops {
namespace cuda {

Kernel double_kernel(Mode mode, int quads) {
  return with_mode(mode, [&](auto m) {
    return quads ? Kernel(surrogate_registers<double, kDoubleQuads, decltype(m)::value, Serves::kAll>)
                 : Kernel(surrogate_long<double, decltype(m)::value, Serves::kAll>);
  });
}

}  // namespace cuda
}  // namespace discrete_ops
