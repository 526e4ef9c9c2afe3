// What names an estimator in the compiled backends.
#pragma once

#include <cstdint>

#include "host_device.h"
#include "philox.h"

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

// Whether its pull-back is the same function for every draw of a row.
DISCRETE_OPS_HD constexpr bool forgets_draw(Estimator e) {
  return e == kStraightThrough || e == kReinMaxArgmax;
}

// Whether its pull-backs of several draws of a row are added up by sums over their gradients (pooled.h).
DISCRETE_OPS_HD constexpr bool pools(Estimator e) {
  return forgets_draw(e) || e == kGST || e == kReinMax || e == kReinMaxRK2 || e == kMix;
}

// The operators' number of an estimator is its row, and what reference.NUMBERS adds to it: for stratified draws, and
// for logits (..., 1) of binary variables. A row of these is l and a 0 that is in no memory; what is read and written
// belongs to the first of the two.
constexpr int64_t kStratified = 256, kBinary = 512;

// K of Gumbel-Rao on binary variables: its mean over all draws, without one.
constexpr int64_t kAllDraws = 0;

struct Spec {
  Estimator estimator;
  int64_t num_samples;    // K
  philox::Strata strata;  // of the K draws
  bool binary;
};

// Whether there is such a number; the spec of it and of K.
inline bool read_spec(int64_t number, int64_t num_samples, Spec& spec) {
  const int64_t row = number & (kStratified - 1), variants = number & ~(kStratified - 1);
  if (row >= kNumEstimators || (variants & ~(kStratified | kBinary))) return false;
  spec = {static_cast<Estimator>(row), num_samples, {}, (variants & kBinary) != 0};
  if (variants & kStratified) spec.strata = philox::strata_of(num_samples);
  return !(variants & kStratified) || takes_draws(spec.estimator);
}

}  // namespace discrete_ops
