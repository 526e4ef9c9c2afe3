// Philox4x32-10 and the noise layout of every backend; the scalar form, for host and device.
// Source: Salmon et al., SC 2011. Mirrors discrete_ops/philox.py, which describes the layout:
//   key = seed, counter = (column / 4, draw, row low, row high), lane = column % 4.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace discrete_ops {
namespace philox {

constexpr uint32_t kForwardDraw = 0xFFFFFFFFu;                             // draw index of the forward pass's uniform
constexpr uint32_t kStrataDraw = 0xFFFFFFFEu, kShuffleDraw = 0xFFFFFFFDu;  // of a column's order of strata
constexpr uint32_t kM0 = 0xD2511F53u, kM1 = 0xCD9E8D57u;
constexpr uint32_t kW0 = 0x9E3779B9u, kW1 = 0xBB67AE85u;
constexpr int kRounds = 10;

// The upper word of a product.
DISCRETE_OPS_HD uint32_t upper(uint32_t a, uint32_t b) {
#ifdef __CUDA_ARCH__
  return __umulhi(a, b);
#else
  return static_cast<uint32_t>(static_cast<uint64_t>(a) * b >> 32);
#endif
}

// Both words of it. For a GPU as one instruction, which nvcc does not make of a product of 64 bits.
DISCRETE_OPS_HD void multiply(uint32_t a, uint32_t b, uint32_t& high, uint32_t& low) {
#ifdef __CUDA_ARCH__
  asm("{ .reg .b64 product; mul.wide.u32 product, %2, %3; mov.b64 {%1, %0}, product; }"
      : "=r"(high), "=r"(low)
      : "r"(a), "r"(b));
#else
  const uint64_t product = static_cast<uint64_t>(a) * b;
  high = static_cast<uint32_t>(product >> 32), low = static_cast<uint32_t>(product);
#endif
}

// Replaces counter[0..3] by the four words of noise.
DISCRETE_OPS_HD void philox4x32(uint64_t seed, uint32_t counter[4]) {
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < kRounds; ++round) {
    uint32_t high0, low0, high1, low1;
    multiply(kM0, counter[0], high0, low0);
    multiply(kM1, counter[2], high1, low1);
    counter[0] = high1 ^ counter[1] ^ k0;
    counter[1] = low1;
    counter[2] = high0 ^ counter[3] ^ k1;
    counter[3] = low0;
    k0 += kW0;
    k1 += kW1;
  }
}

// The four words of one block of columns in one draw of one row.
DISCRETE_OPS_HD void words(uint64_t seed, uint32_t block, uint32_t draw, uint64_t row, uint32_t out[4]) {
  out[0] = block, out[1] = draw, out[2] = static_cast<uint32_t>(row), out[3] = static_cast<uint32_t>(row >> 32);
  philox4x32(seed, out);
}

// The forward pass's uniform, on the grid (n + 1/2) 2^-52: never 0, never 1.
DISCRETE_OPS_HD double uniform(uint64_t seed, uint64_t row) {
  uint32_t w[4];
  words(seed, 0, kForwardDraw, row, w);
  const uint64_t n = (static_cast<uint64_t>(w[0]) << 20) + (w[1] >> 12);
  return (static_cast<double>(n) + 0.5) * 0x1p-52;
}

// K strata for as many draws.
struct Strata {
  uint32_t count;     // K; 0: the draws are independent
  int shift, rounds;  // 32 less the bits of K - 1; of the shuffle
  double width;       // 1 / K
};

inline Strata strata_of(int64_t count) {
  int bits = 1;
  while ((int64_t{1} << bits) < count) ++bits;
  return {static_cast<uint32_t>(count), 32 - bits, (bits + 1) / 2 + 2, 1 / static_cast<double>(count)};
}

}  // namespace philox
}  // namespace discrete_ops
