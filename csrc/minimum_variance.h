// The minimum-variance estimator on one row, over the Row of surrogates.h: discrete_ops/minimum_variance.py derives it.
#pragma once

#include "cauchy.h"

namespace discrete_ops {

template <class Row>
struct MinimumVariance {
  using V = typename Row::V;
  using M = typename Row::Math;
  using T = typename M::T;

  Row& r;

  // J(pi; y), y = R M^-1 w. All counts from the sampled v on, which leaves w one sum at the winner.
  DISCRETE_OPS_HD void run(V temperature) {
    const V t = M::select(temperature >= M::set(0), M::min(temperature, M::set(T(kMostTemperature))), M::set(M::kNaN));
    const V inverse = M::divide(M::set(1), r.sum([&](auto s) { return r.a(s) = M::exp(r.z(s)); }));
    const V v_winner = r.sum([&](auto s) { return M::select(r.winner(s), r.v(s), M::set(0)); });
    const V p_winner = r.sum([&](auto s) {
      r.a(s) *= inverse;
      return M::select(r.winner(s), r.a(s), M::set(0));
    });
    const V of_others = r.sum([&](auto s) {
      const V tp = t * r.a(s), share = M::divide(r.v(s) - v_winner, (t * p_winner + T(1)) + tp);
      r.v(s) = share + share * tp;
      return share * tp;
    });
    r.each([&](auto s) { r.v(s) -= M::select(r.winner(s), of_others, M::set(0)); });
    const V size = solve(t);
    const V high = r.sum([&](auto s) {  // out is the multipliers, v becomes y
      const V tp = t * r.a(s);
      r.v(s) = M::divide(r.out(s) + r.out(s) * tp, (tp + tp) + T(1));
      return r.a(s) * r.v(s);
    });
    const V low = r.sum([&](auto s) { return r.a(s) * (r.v(s) - high); });
    r.each([&](auto s) { r.out(s) = (r.a(s) * ((r.v(s) - high) - low)) * size; });
  }

  // out = M^-1 v / size, M = diag(b) - t diag(p) K diag(p), b = (1 + t p) K p: conjugate gradients preconditioned by
  // b. p is a, the residual v, the direction z. Returns the size, the largest |v|: out may be 1 + t times as large as v
  // / size, most of which J takes away, so that only then there is room for it.
  DISCRETE_OPS_HD V solve(V t) {
    const CauchyTerms<M> terms(t);
    V h[CauchyTerms<M>::kMost];
    r.prepare_cauchy(terms);
    r.moments(terms, [&](auto s) { return r.a(s); }, h);
    for (int k = 0; k < terms.count; ++k) h[k] *= terms.shift[k] + terms.shift[k];
    r.expand(terms, h, [&](auto s, V of_p) {
      r.b(s) = of_p + of_p * (t * r.a(s));
      r.c(s) = M::divide(M::set(1), r.b(s));
      r.z(s) = r.out(s) = M::set(0);
    });
    const V size = M::min(M::max(r.max([&](auto s) { return M::max(r.v(s), -r.v(s)); }), M::set(M::kTiny)),
                          M::set(T(1) / M::kTiny));
    const V shrink = M::divide(M::set(1), size);  // squares of any gradient are to be numbers
    r.each([&](auto s) { r.v(s) *= shrink; });
    V rho = r.sum([&](auto s) { return r.v(s) * r.v(s) * r.c(s); }), beta = M::set(0);
    const V least = rho * T(CauchyTerms<M>::kIsFloat ? 0x1p-46 : 0x1p-92);
    constexpr int kMostSteps = CauchyTerms<M>::kIsFloat ? 8 : 20;
    for (int step = 0; step < kMostSteps && M::any(rho > least); ++step) {
      r.moments(
          terms,
          [&](auto s) {
            r.z(s) = r.v(s) * r.c(s) + beta * r.z(s);
            return r.a(s) * r.z(s);
          },
          h);
      V energy = r.sum([&](auto s) { return r.b(s) * r.z(s) * r.z(s); });
      for (int k = 0; k < terms.count; ++k) {
        const V weighed = h[k] * (terms.shift[k] + terms.shift[k]);
        energy -= t * weighed * h[k];
        h[k] = weighed;
      }
      const V alpha = M::select(rho > least, M::divide(rho, energy), M::set(0));  // a row that has arrived stands
      r.expand(terms, h, [&](auto s, V of_direction) {
        r.out(s) += alpha * r.z(s);
        r.v(s) -= alpha * (r.b(s) * r.z(s) - t * r.a(s) * of_direction);
      });
      const V next = r.sum([&](auto s) { return r.v(s) * r.v(s) * r.c(s); });
      beta = M::select(rho > least, M::divide(next, rho), M::set(0));
      rho = M::select(rho > least, next, rho);
    }
    return size;
  }
};

}  // namespace discrete_ops
