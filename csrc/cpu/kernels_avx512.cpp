// The kernels for x86-64 with AVX512. Everything that other translation units share comes before the target.
#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#endif

#define DISCRETE_OPS_ISA avx512
#define DISCRETE_OPS_BYTES 64
#include "kernels.inc"

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace discrete_ops {
const Kernels* avx512_kernels() {
  static constexpr Kernels kernels = avx512::table("avx512");
  return &kernels;
}
}  // namespace discrete_ops
#else
namespace discrete_ops {
const Kernels* avx512_kernels() {
  return nullptr;
}
}  // namespace discrete_ops
#endif
