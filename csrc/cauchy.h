// Products with the matrix 1 / (1 + t (p_i + p_j)) of a row, and the system of the minimum-variance estimator, which
// discrete_ops/minimum_variance.py derives.
#pragma once

#include "host_device.h"

namespace discrete_ops {

constexpr double kMostTemperature = 0x1p30;  // stands for an infinite one
// Above it a float32 row has not the precision: it is computed in double.
constexpr double kMostFloatTemperature = 16;

// 1 / (a + b) for a, b in [1/2, 1/2 + t] as a sum of u(a) u(b) 2 c: with shifts c,
//   1 / (a + b) = 2 c / ((a + c) (b + c)) + (a - c) (b - c) / ((a + c) (b + c)) * 1 / (a + b),
// as often as is needed. These shifts are Zolotarev's, of the ADI method, but for their ends.
template <class M>
struct CauchyTerms {
  using V = typename M::V;
  using T = typename M::T;
  static constexpr bool kIsFloat = sizeof(T) == 4;
  // Terms that leave e^-16.4 or e^-33 of an element; whole groups of three, as they are taken.
  static constexpr int kMost = kIsFloat ? 9 : 78;

  int count;
  V t, shift[kMost];

  explicit DISCRETE_OPS_HD CauchyTerms(V temperature) : t(temperature) {
    const V reach = M::log1p(t * T(8) + T(3)), most = t + T(0.5), half = M::set(T(0.5));
    const T needed = M::greatest(reach) * T((kIsFloat ? 16.4 : 33) / 9.869604401089358);
    count = 3;
    while (count < kMost && static_cast<T>(count) < needed) count += 3;
    for (int k = 0; k < count; ++k) {
      const V place = reach * (static_cast<T>(2 * k + 1) / static_cast<T>(2 * count));
      const auto low = place + place > reach;  // the two halves are each other's mirror
      const V e = M::exp(-M::select(low, reach - place, place));
      const V cosh = M::divide(e * e + T(1), e + e);
      shift[k] = M::select(low, half * cosh, M::divide(most, cosh));
    }
  }
};

}  // namespace discrete_ops
