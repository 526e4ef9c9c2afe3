// The order in which stratified draws take the strata of each column, for numbers and for vectors of them. Mirrors
// `stratum` of discrete_ops/philox.py, which describes it. Included where the vectors' instructions are at hand.
#pragma once

#include "philox.h"

namespace discrete_ops {
namespace philox {

// Of unsigned numbers: x becomes x mod K as lesser(x, x - K) and, below 0, as lesser(x, x + K).
template <class U>
DISCRETE_OPS_HD U lesser(U a, U b) {
  return a < b ? a : b;
}

// x[i]: the stratum of draw k, counted from the strata's first, in a column whose rotation is the upper word of its
// word times K. Several columns at once hide the rounds' latency.
template <int kColumns, class U>
DISCRETE_OPS_HD void strata_of_draw(const Strata& strata, uint32_t k, const U* rotation, const U* shuffle, U* x) {
  const uint32_t count = strata.count;
  U random[kColumns];
  for (int i = 0; i < kColumns; ++i) {
    x[i] = rotation[i] + k;
    x[i] = lesser<U>(x[i], x[i] - count);
    random[i] = shuffle[i];
  }
  for (int round = 0; round < strata.rounds; ++round) {
    for (int i = 0; i < kColumns; ++i) {
      random[i] = random[i] * 747796405u + 2891336453u;
      U key = random[i] >> strata.shift;
      key = lesser<U>(key, key - count);
      U partner = key - x[i];
      partner = lesser<U>(partner, partner + count);
      const U larger = x[i] < partner ? partner : x[i];
      x[i] = larger * random[i] + shuffle[i] >= 0x80000000u ? partner : x[i];
    }
  }
}

}  // namespace philox
}  // namespace discrete_ops
