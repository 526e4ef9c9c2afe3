// The kernels for what every processor of the architecture has: SSE2 on x86-64, NEON on aarch64.
#include "kernels.h"

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define DISCRETE_OPS_ISA baseline
#define DISCRETE_OPS_BYTES 16
#include "kernels.inc"

namespace discrete_ops {
const Kernels* baseline_kernels() {
#if defined(__aarch64__)
  static constexpr Kernels kernels = baseline::table("neon");
#else
  static constexpr Kernels kernels = baseline::table("baseline");
#endif
  return &kernels;
}
}  // namespace discrete_ops
