// The maths of one number a thread: what surrogates.h asks of Row::Math, and the exponential noise.
#pragma once

#include "../strata.h"
#include "device.h"

#ifndef __CUDACC__
#include <cmath>
#endif

namespace discrete_ops {
namespace cuda {

template <class T>
struct Math;

template <>
struct Math<float> {
  using T = float;
  using V = float;
  static constexpr float kInf = __builtin_inff(), kLowest = -0x1.fffffep127f;
  static constexpr float kConditionalLimit = 48;  // as on CPU (simd.h)

  static constexpr float kNaN = __builtin_nanf(""), kTiny = 0x1p-124f;

  static DISCRETE_OPS_DEVICE V set(float x) { return x; }
  static DISCRETE_OPS_DEVICE V select(bool mask, V a, V b) { return mask ? a : b; }
  static DISCRETE_OPS_DEVICE bool all(bool mask) { return mask; }
  static DISCRETE_OPS_DEVICE bool any(bool mask) { return mask; }
  static DISCRETE_OPS_DEVICE V greatest(V x) { return fmaxf(x, 0.0f); }
  static DISCRETE_OPS_DEVICE V max(V a, V b) { return fmaxf(a, b); }
  static DISCRETE_OPS_DEVICE V min(V a, V b) { return fminf(a, b); }
  // To 2^-22 and 2^-28 |x|, relative, and 0 below 2^-126: the hardware's, with what the product with log2 e lost.
  static DISCRETE_OPS_DEVICE V exp(V x) {
    const float y = fmaxf(x, -128.0f), t = y * 0x1.715476p+0f, lost = fmaf(t, -0x1.62e43p-1f, y),
                e = device::approximate_exp2(t);
    return fmaf(e, lost, e);
  }
  static DISCRETE_OPS_DEVICE V exp2(V x) { return exp2f(x); }
  // log(1 + x) for x >= 0, finite, without a branch: simd.h's polynomial. Relative precision down to the smallest x.
  static DISCRETE_OPS_DEVICE V log1p(V x) {
    const int exponent = (device::bits_of(x + 1.0f) - 0x3f3504f3) >> 23;  // 1 + x in [sqrt(1/2), sqrt(2)) * 2^exponent
    const float scale = device::float_of((127 - exponent) << 23), t = fmaf(x, scale, scale - 1.0f), tt = t * t;
    const float p = ((0x1.555554p-2f - 0x1.000226p-2f * t) + tt * (0x1.99a008p-3f - 0x1.547244p-3f * t)) +
                    (tt * tt) * ((0x1.22da1cp-3f - 0x1.0d8544p-3f * t) + tt * (0x1.055b72p-3f - 0x1.38b582p-4f * t));
    const float e = static_cast<float>(exponent);
    return e * 0x1.62e4p-1f + (fmaf(e, 0x1.7f7d1cp-20f, fmaf(t * tt, p, -0.5f * tt)) + t);
  }
  // exp(x * rate) for x <= 0, to 2^-22 of 1, which is what a cumulative sum needs.
  static DISCRETE_OPS_DEVICE V share(V x, V rate) {
    return device::approximate_exp2(x * (rate * 1.44269504088896340736f));
  }
  // Its callers divide by sums of weights and by noise, all far from the ends of float's range.
  static DISCRETE_OPS_DEVICE V divide(V a, V b) { return a * device::approximate_inverse(b); }
};

// float64 is the precision for checking, not for speed.
template <>
struct Math<double> {
  using T = double;
  using V = double;
  static constexpr double kInf = __builtin_inf(), kLowest = -0x1.fffffffffffffp1023;
  static constexpr double kConditionalLimit = 600;

  static constexpr double kNaN = __builtin_nan(""), kTiny = 0x1p-1000;

  static DISCRETE_OPS_DEVICE V set(double x) { return x; }
  static DISCRETE_OPS_DEVICE V select(bool mask, V a, V b) { return mask ? a : b; }
  static DISCRETE_OPS_DEVICE bool all(bool mask) { return mask; }
  static DISCRETE_OPS_DEVICE bool any(bool mask) { return mask; }
  static DISCRETE_OPS_DEVICE V greatest(V x) { return fmax(x, 0.0); }
  static DISCRETE_OPS_DEVICE V max(V a, V b) { return fmax(a, b); }
  static DISCRETE_OPS_DEVICE V min(V a, V b) { return fmin(a, b); }
  static DISCRETE_OPS_DEVICE V exp(V x) { return ::exp(x); }
  static DISCRETE_OPS_DEVICE V exp2(V x) { return ::exp2(x); }
  static DISCRETE_OPS_DEVICE V log1p(V x) { return ::log1p(x); }
  static DISCRETE_OPS_DEVICE V share(V x, V rate) { return ::exp(x * rate); }
  static DISCRETE_OPS_DEVICE V divide(V a, V b) { return a / b; }
};

// Standard exponential noise from a word; the definition is discrete_ops/philox.py's `exponential`. Below u = 1/2 a
// polynomial, which keeps the relative precision of small noise; above it the hardware's logarithm of 1 - u, which is
// exact there.
DISCRETE_OPS_DEVICE float uniform(uint32_t word) {  // (word + 1/2) 2^-32
  return fmaf(static_cast<float>(word), 0x1p-32f, 0x1p-33f);
}
DISCRETE_OPS_DEVICE void exponential(float u, float& e) {
  u = fminf(u, 1 - 0x1p-24f);
  float q = 0x1.6a1fccp+0f;
  q = fmaf(q, u, -0x1.a3bc28p+0f);
  q = fmaf(q, u, 0x1.356e4ap+0f);
  q = fmaf(q, u, -0x1.72972ap-3f);
  q = fmaf(q, u, 0x1.0e05p-2f);
  q = fmaf(q, u, 0x1.f30fdep-3f);
  q = fmaf(q, u, 0x1.55a3a8p-2f);
  q = fmaf(q, u, 0x1.fffecp-2f);
  const float small = fmaf(u * u, q, u);
  const float large = device::approximate_log2(1.0f - u) * -0x1.62e43p-1f;
  e = u < 0.5f ? small : large;
}

DISCRETE_OPS_DEVICE void exponential(uint32_t word, float& e) {
  exponential(uniform(word), e);
}
DISCRETE_OPS_DEVICE void exponential(uint32_t word, uint32_t stratum, double width, float& e) {
  exponential((static_cast<float>(stratum) + uniform(word)) * static_cast<float>(width), e);
}

DISCRETE_OPS_DEVICE void exponential(uint32_t word, double& e) {
  e = -::log1p(-((static_cast<double>(word) + 0.5) * 0x1p-32));
}
DISCRETE_OPS_DEVICE void exponential(uint32_t word, uint32_t stratum, double width, double& e) {
  const double u = (stratum + (static_cast<double>(word) + 0.5) * 0x1p-32) * width;
  e = -::log1p(-fmin(u, 1 - 0x1p-53));
}

// Of the four columns of a block, the strata of the i-th draw: their orders are made again for every draw, for
// registers are scarce.
DISCRETE_OPS_DEVICE void strata_of_block(const philox::Strata& strata, uint64_t seed, uint32_t block, uint64_t row,
                                         uint32_t i, uint32_t stratum[4]) {
  uint32_t rotation[4], shuffle[4];
  philox::words(seed, block, philox::kStrataDraw, row, rotation);
  philox::words(seed, block, philox::kShuffleDraw, row, shuffle);
  for (uint32_t& x : rotation) x = philox::upper(x, strata.count);
  philox::strata_of_draw<4>(strata, i, rotation, shuffle, stratum);
}

}  // namespace cuda
}  // namespace discrete_ops
