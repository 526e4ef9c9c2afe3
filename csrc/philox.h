// Philox4x32-10 and the noise layout of every backend; the scalar form, for host and device.
// Source: Salmon et al., SC 2011. Mirrors discrete_ops/philox.py, which describes the layout:
//   key = seed, counter = (column / 4, draw, row low, row high), lane = column % 4.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace discrete_ops {
namespace philox {

constexpr uint32_t kForwardDraw = 0xFFFFFFFFu;  // draw index of the forward pass's uniform
constexpr uint32_t kM0 = 0xD2511F53u, kM1 = 0xCD9E8D57u;
constexpr uint32_t kW0 = 0x9E3779B9u, kW1 = 0xBB67AE85u;
constexpr int kRounds = 10;

// Replaces counter[0..3] by the four words of noise.
DISCRETE_OPS_HD void philox4x32(uint64_t seed, uint32_t counter[4]) {
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(kM0) * counter[0], p1 = static_cast<uint64_t>(kM1) * counter[2];
    counter[0] = static_cast<uint32_t>(p1 >> 32) ^ counter[1] ^ k0;
    counter[2] = static_cast<uint32_t>(p0 >> 32) ^ counter[3] ^ k1;
    counter[1] = static_cast<uint32_t>(p1);
    counter[3] = static_cast<uint32_t>(p0);
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

}  // namespace philox
}  // namespace discrete_ops
