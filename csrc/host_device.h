// Marks what host and device share: a function; and, behind its parameters, a lambda of long code for several places.
#pragma once

#ifdef __CUDACC__
#define DISCRETE_OPS_HD __host__ __device__ __forceinline__
#define DISCRETE_OPS_INLINE
#else
#define DISCRETE_OPS_HD inline __attribute__((always_inline))
#define DISCRETE_OPS_INLINE __attribute__((always_inline))
#endif
