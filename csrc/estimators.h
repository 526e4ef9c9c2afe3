// What names an estimator in the compiled backends.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace discrete_ops {

// The table of the family, numbered as reference.TERMS.
enum Estimator : int64_t {
  kStraightThrough,
  kGumbelRao,
  kGST,
  kGSTPi,
  kReinMax,
  kReinMaxArgmax,
  kReinMaxRao,
  kReinMaxCV,
  kReinMaxCVGumbel,
  kReinMaxRK2,
  kNumEstimators
};

// Whether its work grows with K.
DISCRETE_OPS_HD constexpr bool takes_draws(Estimator e) {
  return e == kGumbelRao || e == kReinMaxRao || e == kReinMaxCV || e == kReinMaxCVGumbel;
}

struct Spec {
  Estimator estimator;
  double coefficient;   // gap of GST, eta of ReinMax-CV, beta of RK2
  int64_t num_samples;  // K
};

}  // namespace discrete_ops
