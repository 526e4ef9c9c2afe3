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
  kMix,
  kMVE,
  kNumEstimators
};

// Whether its work grows with K.
DISCRETE_OPS_HD constexpr bool takes_draws(Estimator e) {
  return e == kGumbelRao || e == kReinMaxRao || e == kReinMaxCV || e == kReinMaxCVGumbel;
}

// Whether its pull-back is the Jacobian of a soft sample.
DISCRETE_OPS_HD constexpr bool has_soft_sample(Estimator e) {
  return e == kStraightThrough || e == kGumbelRao || e == kGST || e == kGSTPi;
}

struct Spec {
  Estimator estimator;
  int64_t num_samples;  // K
};

}  // namespace discrete_ops
