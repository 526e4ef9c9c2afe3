// Draws of winners.
#include "kernels.h"
#include "launch.h"

namespace discrete_ops {
namespace cuda {

Kernel sample_kernel(bool is_double, int quads) {
  if (is_double) return quads ? sample_registers<double, kDoubleQuads> : sample_long<double>;
  if (!quads) return sample_long<float>;
  return with_quads(quads, [](auto q) { return Kernel(sample_registers<float, decltype(q)::value>); });
}

}  // namespace cuda
}  // namespace discrete_ops
