// Marks what host and device share.
#pragma once

#ifdef __CUDACC__
#define DISCRETE_OPS_HD __host__ __device__ __forceinline__
#else
#define DISCRETE_OPS_HD inline __attribute__((always_inline))
#endif
