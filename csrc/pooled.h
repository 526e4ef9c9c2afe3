// The pull-backs of several draws of a row, added up without one after the other, of the estimators for which a row
// pools (estimators.h).
//
// A J is blind to a constant that is added to v. So let a draw's deviation be v minus v at its winner, and u weights
// that no draw changes. Then a pull-back consists of the deviation's products with such weights, and, at the winner, of
// <u, deviation>. Their sums over the draws are linear in two rows, which pool() makes:
//
//   pool()      v(s) becomes the sum over the draws of share * deviation(s); b(s), over those that s won, the sum of
//               share * <u, deviation>; u is a, and the share of a draw is c at its winner
#pragma once

#include "surrogates.h"

namespace discrete_ops {

template <class Row>
struct Pooled : Surrogate<Row> {
  using V = typename Row::V;
  using M = typename Row::Math;
  using T = typename M::T;
  using Mean = typename Surrogate<Row>::Mean;

  // The mean of the sum of the deviations under the weights, which b has times their total; a keeps them.
  template <class F>
  DISCRETE_OPS_HD Mean pool(const F& weights) {
    Row& r = this->r;
    r.each([&](auto s) { r.a(s) = weights(s), r.c(s) = M::set(1); });
    r.pool();
    return this->weigh([&](auto s) { return r.a(s); });
  }
  DISCRETE_OPS_HD auto at_one() {
    return [this](auto s) { return M::exp(this->r.z(s)); };
  }

  DISCRETE_OPS_HD void gst() {
    Row& r = this->r;
    r.each([&](auto s) { r.a(s) = this->off_winner(s, this->coefficient); });
    const V total = r.sum([&](auto s) { return r.a(s); });
    r.each([&](auto s) { r.c(s) = M::divide(M::set(1), total + (M::set(1) - r.a(s))); });  // where s wins, with 1
    r.pool();
    const V means = r.sum([&](auto s) { return r.c(s) * r.b(s); });
    r.each([&](auto s) {
      const V w = r.a(s), won = (M::set(1) - w) * (r.c(s) * r.b(s));
      r.out(s) += this->inv_tau * (w * (r.v(s) - means) - won);
    });
  }

  DISCRETE_OPS_HD void reinmax() {
    if (M::all(this->tau == M::set(1))) return reinmax_rk2(M::set(T(0.5)));
    Row& r = this->r;
    const V rate = this->inv_tau;
    const Mean mean = pool([&, rate](auto s) { return M::exp(r.z(s) * rate); });
    const V half_inverse = mean.inverse * T(0.5);
    r.each([&](auto s) {
      r.out(s) += (r.a(s) * half_inverse) * (this->deviation(s, mean) + r.v(s)) - r.b(s) * half_inverse;
    });
    this->subtract_half();
  }

  DISCRETE_OPS_HD void reinmax_rk2(V beta) {
    Row& r = this->r;
    const V inverse = pool(at_one()).inverse;
    r.each([&](auto s) { r.out(s) += (r.a(s) * inverse) * (r.v(s) * (M::set(1) - beta)) - (r.b(s) * inverse) * beta; });
  }

  DISCRETE_OPS_HD void mix(V a) {
    Row& r = this->r;
    const V half_a = a * T(0.5);
    const Mean mean = pool(at_one());
    r.each([&](auto s) {
      const V pi = r.a(s) * mean.inverse, of_pi = this->deviation(s, mean);
      const V from_D = (of_pi - mean.high) - mean.low;
      r.out(s) += pi * of_pi - half_a * (pi * from_D + r.b(s) * mean.inverse);
    });
  }

  DISCRETE_OPS_HD void run() {
    switch (this->spec.estimator) {
      case kGST:
        return gst();
      case kReinMax:
        return reinmax();
      case kReinMaxRK2:
        return reinmax_rk2(this->coefficient);
      case kMix:
        return mix(this->coefficient);
      default:  // forgets_draw
        pool(at_one());
        Surrogate<Row>::run();
    }
  }
};

}  // namespace discrete_ops
