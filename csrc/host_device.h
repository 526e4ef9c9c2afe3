// Marks: of a function that host and device share; and of a long lambda, behind its parameters, that is to be inlined
// wherever the host calls it.
#pragma once

#ifdef __CUDACC__
#define DISCRETE_OPS_HD __host__ __device__ __forceinline__
#define DISCRETE_OPS_INLINE
#else
#define DISCRETE_OPS_HD inline __attribute__((always_inline))
#define DISCRETE_OPS_INLINE __attribute__((always_inline))
#endif
