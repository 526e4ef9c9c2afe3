// What the kernels ask of the machine they run on: thread indices, shuffles, barriers, approximate instructions.
// Compiled by nvcc for the GPU; by a host compiler for tests/cuda_emulation.h, which runs each thread as a fibre.
#pragma once

#include "../philox.h"

#ifdef __CUDACC__

#define DISCRETE_OPS_DEVICE __device__ __forceinline__
#define DISCRETE_OPS_KERNEL(threads, blocks) __global__ void __launch_bounds__(threads, blocks)  // on a multiprocessor
#define DISCRETE_OPS_KERNEL_OF_REGISTERS(most) __global__ void __maxnreg__(most)
#define DISCRETE_OPS_PARAMETER const __grid_constant__  // read where it lies, not copied to the stack
#define DISCRETE_OPS_UNROLL _Pragma("unroll")
#define DISCRETE_OPS_ROLLED _Pragma("unroll 1")  // loops that few long rows take: code size is compile time

namespace discrete_ops {
namespace cuda {
namespace device {

DISCRETE_OPS_DEVICE int thread() {
  return static_cast<int>(threadIdx.x);
}
DISCRETE_OPS_DEVICE int64_t block() {
  return blockIdx.x;
}
DISCRETE_OPS_DEVICE int64_t blocks() {
  return gridDim.x;
}

DISCRETE_OPS_DEVICE int log2_of_power(int x) {
  return __ffs(x) - 1;
}

// The lanes of `mask` call these together; `source` is a lane of the warp.
template <class X>
DISCRETE_OPS_DEVICE X shuffle(unsigned mask, X x, int source) {
  return __shfl_sync(mask, x, source);
}
template <class X>
DISCRETE_OPS_DEVICE X shuffle_xor(unsigned mask, X x, int flip) {
  return __shfl_xor_sync(mask, x, flip);
}

// Of the lane `step` below among groups of `width` lanes; of the first ones, their own.
template <class X>
DISCRETE_OPS_DEVICE X shuffle_up(unsigned mask, X x, int step, int width) {
  return __shfl_up_sync(mask, x, static_cast<unsigned>(step), width);
}

// Whether x is true in any lane of the warp, all of which call this.
DISCRETE_OPS_DEVICE bool any(bool x) {
  return __any_sync(~0u, x);
}

// `count` threads of the block meet, a multiple of 32; barriers with different numbers, 1 to 15, do not touch.
DISCRETE_OPS_DEVICE void barrier(int number, int count) {
  asm volatile("bar.sync %0, %1;" ::"r"(number), "r"(count) : "memory");
}
DISCRETE_OPS_DEVICE void block_barrier() {
  __syncthreads();
}

// x, of which the compiler knows nothing: what depends on it is computed anew, not kept in registers.
DISCRETE_OPS_DEVICE uint64_t unknown(uint64_t x) {
  asm volatile("" : "+l"(x));
  return x;
}
DISCRETE_OPS_DEVICE int unknown(int x) {
  asm volatile("" : "+r"(x));
  return x;
}
DISCRETE_OPS_DEVICE float unknown(float x) {
  asm volatile("" : "+f"(x));
  return x;
}
DISCRETE_OPS_DEVICE double unknown(double x) {
  asm volatile("" : "+d"(x));
  return x;
}

// Scratch of a block. Every call in a kernel names the same bytes.
DISCRETE_OPS_DEVICE char* shared_memory() {
  extern __shared__ __align__(16) char bytes[];
  return bytes;
}

// `count` blocks of a cooperative launch meet; what they wrote before is seen by read_shared() after. `arrived` starts
// at 0 and only grows.
DISCRETE_OPS_DEVICE void grid_barrier(unsigned* arrived, unsigned count) {
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    const unsigned goal = (atomicAdd(arrived, 1u) / count + 1) * count;
    while (static_cast<int>(goal - *static_cast<volatile unsigned*>(arrived)) > 0) {
    }
    __threadfence();
  }
  __syncthreads();
}
DISCRETE_OPS_DEVICE double read_shared(const double* x) {
  return __ldcg(x);  // from L2: another block wrote it
}

DISCRETE_OPS_DEVICE int bits_of(float x) {
  return __float_as_int(x);
}
DISCRETE_OPS_DEVICE float float_of(int bits) {
  return __int_as_float(bits);
}
DISCRETE_OPS_DEVICE float half_to_float(uint16_t x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
  return y;
}
DISCRETE_OPS_DEVICE uint16_t float_to_half(float x) {
  uint16_t y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return y;
}

// The greater of two; NaN where either is.
DISCRETE_OPS_DEVICE float greater_or_nan(float x, float y) {
  float z;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y));
  return z;
}
DISCRETE_OPS_DEVICE double greater_or_nan(double x, double y) {
  return x > y || x != x ? x : y;
}

// 2^x to 2^-22, relative; 0 below 2^-126.
DISCRETE_OPS_DEVICE float approximate_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// 1 / x to 1 ulp, and 0 above 2^126.
DISCRETE_OPS_DEVICE float approximate_inverse(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// log2 x to 2^-22, relative for x outside [0.5, 2], absolute inside.
DISCRETE_OPS_DEVICE float approximate_log2(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace device
}  // namespace cuda
}  // namespace discrete_ops

#else
#include "cuda_emulation.h"
#endif
