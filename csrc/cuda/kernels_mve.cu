// The minimum-variance estimator.
#include "kernels.h"
#include "launch.h"

namespace discrete_ops {
namespace cuda {

Kernel mve_kernel(int quads) {
  switch (quads) {
    case 0:
      return surrogate_long<float, Mode::kPullBack, Serves::kMVE>;
    case 1:
      return surrogate_registers<float, 1, Mode::kPullBack, Serves::kMVE>;
    default:
      return surrogate_registers<float, kMVEQuads, Mode::kPullBack, Serves::kMVE>;
  }
}

}  // namespace cuda
}  // namespace discrete_ops
