// Gumbel-Rao's limit in K, of a binary variable: mirrors discrete_ops/quadrature.py, with fewer nodes in float32.
#pragma once

#include "call.h"

namespace discrete_ops {

// A node of a quadrature rule: e^t, and its weight as far as the temperature says.
template <class V>
struct Node {
  V e, weight;
};
constexpr int kFloatNodes = 41, kDoubleNodes = 105;

// With A the probability of the one that did not win and R = e^t up to a factor, the winner leads by log1p(R / A).
template <class Row>
struct AllDraws {
  using V = typename Row::V;
  using M = typename Row::Math;
  using T = typename M::T;

  Row& r;
  const V tau;

  DISCRETE_OPS_HD void add() {
    const V one = M::set(1);
    const auto is_one = r.winner(0);
    const V lead = M::select(is_one, r.z(0) - r.z(1), r.z(1) - r.z(0));
    // Less is no different, and no product leaves the normal range.
    const V least = M::set(T(sizeof(T) == 8 ? 0x1p-60 : 0x1p-40));
    const V temperature = M::select(tau < least, least, tau), inverse = M::divide(one, temperature);
    // At a low temperature the integrand's middle is where the lag is about tau, at a high one where R is about 1.
    const auto is_low = temperature <= one;
    V total;
    if (M::all(is_low)) {
      total = mean_at_low_tau(lead, temperature, inverse);
    } else {
      total = mean_at_high_tau(lead, inverse);
      if (!M::all(temperature > one)) total = M::select(is_low, mean_at_low_tau(lead, temperature, inverse), total);
    }
    if constexpr (Row::kMode == Mode::kPullBack) r.out(0) += total * r.v(0);  // the other category's v is 0
    if constexpr (Row::kMode == Mode::kSoft) {
      const V loser = total * temperature;
      r.out(0) += M::select(is_one, one - loser, loser);
    }
    if constexpr (Row::kMode == Mode::kTau) r.out(0) += M::select(is_one, -total, total);
  }

  // The sum over the nodes of dR make(e^t) use(e^t). What is made depends on the temperature alone.
  template <class Make, class Use>
  DISCRETE_OPS_HD V sum_over_nodes(const Make& make, const Use& use) {
    constexpr int kNodes = sizeof(T) == 8 ? kDoubleNodes : kFloatNodes;
    constexpr T kEnd = T(sizeof(T) == 8 ? 10.4 : 8), kStep = 2 * kEnd / (kNodes - 1);
    V total = M::set(0);
    for (int k = 0; k < kNodes; ++k) {
      const Node<V> node = r.node(k, [&] {
        const T s = static_cast<T>(k) * kStep - kEnd, ss = s * s;
        const V e = M::exp(M::set(T(1) + s + T(0.02) * ss * s));
        return Node<V>{e, e * (kStep + kStep * T(0.06) * ss) * make(e)};
      });
      total += node.weight * use(node.e);
    }
    return total;
  }

  // R = A tau e^t. What each variable has of its own is the density of R, 1 / (1 + R)^2.
  DISCRETE_OPS_HD V mean_at_low_tau(V lead, V temperature, V inverse) {
    const V one = M::set(1), odds = M::exp(M::min(lead, -lead));
    const V A = M::divide(M::select(lead > M::set(0), odds, one), odds + one), factor = A * temperature;
    return A * sum_over_nodes([&](V e) { return of_lag(M::log1p(e * temperature), inverse); },
                              [&](V e) {
                                const V density = M::divide(one, e * factor + one);
                                return density * density;
                              });
  }

  // R = e^t. R / A is bounded; what is beyond that is added to its logarithm.
  DISCRETE_OPS_HD V mean_at_high_tau(V lead, V inverse) {
    const V one = M::set(1), limit = M::set(M::kConditionalLimit), to_odds = M::exp(M::min(lead, limit)) + one;
    const V beyond = M::min(M::max(lead - limit, M::set(0)), M::set(T(1e30)));
    return inverse * sum_over_nodes(
                         [&](V e) {
                           const V density = M::divide(one, e + one);
                           return density * density;
                         },
                         [&](V e) { return of_lag(M::log1p(e * to_odds) + beyond, inverse); });
  }

  // What the mode takes the mean of, of the loser's soft sample p: p, p (1 - p), or that times lag / tau.
  DISCRETE_OPS_HD V of_lag(V lag, V inverse) {
    const V q = M::exp2(lag * (inverse * T(-1.44269504088896340736))), share = M::divide(M::set(1), q + M::set(1));
    const V p = q * share;
    if constexpr (Row::kMode == Mode::kSoft) return p;
    if constexpr (Row::kMode == Mode::kTau) return (p * share) * (lag * inverse);
    return p * share;
  }
};

}  // namespace discrete_ops
