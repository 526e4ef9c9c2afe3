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
  kReinMaxRK2Centred,
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

// Added to an estimator's number where an operator takes it: logits (..., 1) of binary variables. A row is l and a 0
// that is in no memory; what is read and written belongs to the first of the two.
constexpr int64_t kBinary = 512;

// K of Gumbel-Rao on binary variables: its mean over all draws, without one.
constexpr int64_t kAllDraws = 0;

struct Spec {
  Estimator estimator;
  int64_t num_samples;  // K
  bool binary;
};

}  // namespace discrete_ops
