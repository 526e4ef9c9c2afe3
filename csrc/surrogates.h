// The estimators on one row (or one bundle of rows), for host and device: mirrors discrete_ops/reference.py.
//
// Every estimator is a weighted sum of softmax Jacobian products J(p, q; v) = p (v - <q, v>). It is written once,
// over a Row that the backend provides:
//
//   V, Mask, Math       a value per step (a SIMD vector on CPU, one number a thread on CUDA), its comparison, its maths
//   each(f)             f(step) for every step of the row
//   sum(f)              the sum of f(step) over the row
//   sum2(f, a, b)       f(step, wa, wb) gives two values; a and b become their sums over the row
//   max(f)              the maximum of f(step) over the row
//   z(s), v(s)          logits minus their maximum (-inf where masked), incoming gradient (0 where masked)
//   winner(s)           whether this is the sampled category
//   set_winner_argmax() from now on it is the first argmax of the logits
//   exponentials(k)     a(s) becomes draw k of the row's exponential noise; returns the winner's
//   stratified_exponentials(k, i)  the same of the i-th of the draws that share the spec's strata
//   a(s), b(s)          scratch: a holds a term's weights and what they are made of, b the conditional Gumbels' odds
//   out(s)              the result
//   c(s)                scratch, where MVE is served; and for it, with u_k the functions of cauchy.h at a = 1/2 + t p:
//   prepare_cauchy(c)   makes ready for its terms
//   moments(c, x, h)    h[k] becomes the sum of u_k x(step), for each term; x is called once a step, in order
//   expand(c, h, f)     f(step, sum of h[k] u_k) for every step
//   kMode               what of the terms is accumulated; in a mode other than kPullBack v is scratch
//   kServes             which estimators it is compiled for; kNone: it samples
//   kBinary             whether it may be of binary variables: two steps, of which step 0 has the variable
//   node(k, make)       of such a Row: make(), node k of a quadrature rule, or what it was for rows of that temperature
//   draw_begin(), draw_step()  this Row takes every draw_step-th draw from draw_begin on; others, whose out is added to
//                       its own, take the rest
//   leads()             whether it is the one of them that adds the terms without draws
//   keep(slot, make)    takes the function make for slot 0 or 1, unless an earlier sample of the same row has
//   kept(slot, s, make) and gives make(s), perhaps as it was when it was taken
#pragma once

#include "call.h"
#include "minimum_variance.h"
#include "quadrature.h"
#include "strata.h"

namespace discrete_ops {

enum class Serves { kAll, kWithoutDraws, kWithDraws, kMVE, kNone };

// What a Row inherits whose row has one sample.
struct SampledOnce {
  template <class Make>
  static DISCRETE_OPS_HD void keep(int, const Make&) {}
  template <class Step, class Make>
  static DISCRETE_OPS_HD auto kept(int, Step s, const Make& make) {
    return make(s);
  }
};

// What a Row that takes all draws itself inherits.
struct TakesAllDraws : SampledOnce {
  static constexpr Serves kServes = Serves::kAll;
  static DISCRETE_OPS_HD constexpr uint32_t draw_begin() { return 0; }
  static DISCRETE_OPS_HD constexpr uint32_t draw_step() { return 1; }
  static DISCRETE_OPS_HD constexpr bool leads() { return true; }
};

template <class Row>
struct Surrogate {
  using V = typename Row::V;
  using M = typename Row::Math;
  using T = typename M::T;
  static constexpr bool kPullsBack = Row::kMode == Mode::kPullBack;  // the ReinMax family does, and has no soft sample

  Row& r;
  const Spec& spec;
  const V tau, inv_tau, coefficient;  // of each row; the coefficient is GST's gap, ReinMax-CV's eta, RK2's beta

  // --- terms ------------------------------------------------------------------------------------------------------

  // use(weights): the function `make` of the step, which is the same for every sample of a row.
  template <class Make, class Use>
  DISCRETE_OPS_HD void keep(int slot, const Make& make, const Use& use) {
    r.keep(slot, make);
    use([&](auto s) { return r.kept(slot, s, make); });
  }
  template <class Use>
  DISCRETE_OPS_HD void at_one(const Use& use) {
    keep(0, [&](auto s) { return M::exp(r.z(s)); }, use);
  }
  template <class Use>
  DISCRETE_OPS_HD void at_tau(const Use& use) {
    const V rate = inv_tau;
    keep(1, [&, rate](auto s) { return M::exp(r.z(s) * rate); }, use);
  }

  // 1 / the weights' total, and <p, v> as a sum of two: rounding <p, v> alone would cost v - <p, v> more than anything
  // else does.
  struct Mean {
    V inverse, high, low;
  };
  template <class Step>
  DISCRETE_OPS_HD V deviation(Step s, const Mean& mean) {
    return (r.v(s) - mean.high) - mean.low;
  }

  // Of a weight in [0, 1]; bounded, since those of 0 do not count.
  static DISCRETE_OPS_HD V minus_log(V w) { return M::log1p(M::divide(M::set(1), M::max(w, M::set(M::kTiny))) - T(1)); }

  // a = unnormalised(step), and the mean of v under it. A softmax's derivative in its temperature is its pull-back of
  // -log p.
  template <class F>
  DISCRETE_OPS_HD Mean weigh(const F& unnormalised) {
    V total, dot;
    r.sum2(
        [&](auto s, V& w, V& wv) {
          w = unnormalised(s);
          r.a(s) = w;
          if constexpr (Row::kMode == Mode::kTau) r.v(s) = minus_log(w);
          wv = w * r.v(s);
        },
        total, dot);
    Mean mean{M::divide(M::set(1), total), M::set(0), M::set(0)};
    if constexpr (Row::kMode != Mode::kSoft) {
      mean.high = dot * mean.inverse;
      mean.low = r.sum([&](auto s) { return r.a(s) * (r.v(s) - mean.high); }) * mean.inverse;
    }
    return mean;
  }

  // out += weight * J(p; v) with p = w / sum w, w = unnormalised(step).
  template <class F>
  DISCRETE_OPS_HD void add(V weight, const F& unnormalised) {
    const Mean mean = weigh(unnormalised);
    if constexpr (Row::kMode == Mode::kSoft) {
      const V share = tau * weight * mean.inverse;  // in this order no factor leaves the normal range
      r.each([&](auto s) { r.out(s) += share * r.a(s); });
    } else {
      const V scale = weight * mean.inverse;
      r.each([&](auto s) { r.out(s) += (r.a(s) * scale) * deviation(s, mean); });  // in this order 0 meets no inf
    }
  }

  // out += 2 J((p + D) / 2; v) with p = w / sum w, w = unnormalised(step).
  template <class F>
  DISCRETE_OPS_HD void add_half_way(const F& unnormalised) {
    const Mean mean = weigh(unnormalised);
    const V v_winner = winner_of_v(), half_inverse = mean.inverse * T(0.5);
    r.each([&](auto s) {
      const V half_p_plus_D = r.a(s) * half_inverse + M::select(r.winner(s), M::set(0.5), M::set(0));
      r.out(s) += half_p_plus_D * (deviation(s, mean) + (r.v(s) - v_winner));
    });
  }

  DISCRETE_OPS_HD V winner_of_v() {
    return r.sum([&](auto s) { return M::select(r.winner(s), r.v(s), M::set(0)); });
  }

  // --- conditional Gumbels ----------------------------------------------------------------------------------------

  DISCRETE_OPS_HD bool at_unit_temperature() const { return M::all(tau == M::set(1)); }

  // Prepare draws of softmax(Y(l, D) / tau) for probabilities proportional to exp(y_j) off the winner, y = scale z;
  // returns the sum of exp(y). Keeps the odds exp(-y_j) as b, 0 at the winner, which makes its weight 1. Odds beyond
  // the finite range make a weight of 0 at temperature 1; at others b is then y_j itself, which is negative.
  DISCRETE_OPS_HD V prepare(V scale) {
    const V limit = M::set(-M::kConditionalLimit);
    if (at_unit_temperature()) {
      return odds([&](auto s, V& odds) DISCRETE_OPS_INLINE {  // where the scale is 1, too
        const V weight = M::exp(r.z(s));
        odds = M::divide(M::set(1), weight);
        return weight;
      });
    }
    return odds([&](auto s, V& odds) DISCRETE_OPS_INLINE {
      const V y = r.z(s) * scale, weight = M::exp(M::max(y, limit));
      odds = M::select(y < limit, y, M::divide(M::set(1), weight));
      return weight;
    });
  }
  template <class F>
  DISCRETE_OPS_HD V odds(const F& weight_and_odds) {
    return r.sum([&](auto s) DISCRETE_OPS_INLINE {
      V odds;
      const V weight = weight_and_odds(s, odds);
      r.b(s) = M::select(r.winner(s), M::set(0), odds);
      return weight;
    });
  }

  // A draw's weights (1 + (E_j / E_i) exp(-lp_j)) ** (-1/tau), 1 at the winner, as a function of the step, up to a
  // factor, from its noise a and the winner's; exp(lp_j) = exp(y_j) / partition.
  template <class Use>
  DISCRETE_OPS_HD void draw(V of_winner, V partition, const Use& use) {
    if (at_unit_temperature()) {  // half the work at the commonest temperature
      const V share = of_winner * M::divide(M::set(1), partition);
      use([&](auto s) { return M::divide(share, share + r.a(s) * r.b(s)); });
    } else {
      const V inverse = M::divide(partition, of_winner);
      const V rate = inv_tau * T(-1.44269504088896340736);
      const V limit = M::set(-M::kConditionalLimit), most_odds = M::exp(-limit);
      use([&](auto s) {
        const V odds = r.b(s);
        const auto is_log = odds < M::set(0);
        const V bounded = M::select(is_log, most_odds, odds), beyond = M::select(is_log, limit - odds, M::set(0));
        const V lag = M::log1p(r.a(s) * inverse * bounded) + beyond;  // Y_i - Y_j
        return M::exp2(lag * rate);
      });
    }
  }

  // What distinguishes the estimators that draw: out += weight / (K tau) * sum over the K draws from `first` on of J.
  struct Draws {
    V weight;
    uint32_t first;
    V partition;
  };
  DISCRETE_OPS_HD void add_draws(const Draws& draws) {
    if (spec.strata.count) {  // a loop of its own: what one keeps in registers is not the other's
      add_draws(draws, [&](uint32_t k) { return r.stratified_exponentials(k, k - draws.first); });
    } else {
      add_draws(draws, [&](uint32_t k) { return r.exponentials(k); });
    }
  }
  template <class Exponentials>
  DISCRETE_OPS_HD void add_draws(const Draws& draws, const Exponentials& exponentials) {
    const V each = inv_tau * M::divide(draws.weight, M::set(static_cast<T>(spec.num_samples)));
    const uint32_t end = draws.first + static_cast<uint32_t>(spec.num_samples);  // at most 2^31
    for (uint32_t k = draws.first + r.draw_begin(); k < end; k += r.draw_step()) {
      const V of_winner = exponentials(k);
      draw(of_winner, draws.partition, [&](const auto& unnormalised) { add(each, unnormalised); });
    }
  }

  // --- estimators -------------------------------------------------------------------------------------------------

  DISCRETE_OPS_HD void straight_through() {
    at_tau([&](const auto& weights) { add(inv_tau, weights); });
  }

  DISCRETE_OPS_HD void subtract_half() {  // of J(pi; v), as ReinMax does
    at_one([&](const auto& weights) { add(M::set(T(-0.5)), weights); });
  }

  DISCRETE_OPS_HD Draws gumbel_rao() { return {M::set(1), 0, prepare(M::set(1))}; }

  DISCRETE_OPS_HD void gst() {
    const auto make = [&](auto s) { return off_winner(s, coefficient); };
    keep(1, make, [&](const auto& weights) { add_gst(weights); });
  }
  DISCRETE_OPS_HD void gst_pi() {
    const V gap = pi_gap();
    add_gst([&](auto s) { return off_winner(s, gap); });
  }
  template <class Step>
  DISCRETE_OPS_HD V off_winner(Step s, V gap) {
    return M::exp(M::min(r.z(s), -gap) * inv_tau);
  }
  template <class F>
  DISCRETE_OPS_HD void add_gst(const F& off_winner) {
    add(inv_tau, [&](auto s) { return M::select(r.winner(s), M::set(1), off_winner(s)); });
  }

  // softplus(a) / sigmoid(a), a = l_i - logsumexp_{j != i} l_j: Lemma 1 of GST.
  DISCRETE_OPS_HD V pi_gap() {
    const V lowest = M::set(-M::kInf);
    const auto other = [&](auto s) { return M::select(r.winner(s), lowest, r.z(s)); };
    const V top = r.max(other);
    const V z_winner = r.max([&](auto s) { return M::select(r.winner(s), r.z(s), lowest); });
    const auto alone = top == lowest;
    const V shift = M::select(alone, M::set(0), top);
    const V others = r.sum([&](auto s) { return M::exp(other(s) - shift); });
    const V log_others = M::select(alone, lowest, M::log1p(M::max(others - T(1), M::set(0))) + shift);
    const V a = z_winner - log_others;
    const V x = M::max(M::exp(M::min(a, -a)), M::set(T(1e-30)));
    const V l = M::log1p(x);
    return (x + T(1)) * M::select(a > M::set(0), a + l, l / x);
  }

  DISCRETE_OPS_HD void reinmax() {
    if (M::all(tau == M::set(1))) return reinmax_rk2(M::set(T(0.5)));  // the same, with one softmax
    at_tau([&](const auto& weights) { add_half_way(weights); });
    subtract_half();
  }

  DISCRETE_OPS_HD Draws reinmax_rao() {
    if (r.leads()) subtract_half();
    return {M::set(2), 0, prepare(inv_tau) * T(2)};  // off the winner p_D is pi_t / 2
  }

  DISCRETE_OPS_HD Draws reinmax_cv(bool soft) {
    const V pi_total = prepare(M::set(1));
    if (r.leads()) {
      add_control(soft, pi_total);  // first: what needs most registers finds out(s) to be 0
      subtract_half();
      at_one([&](const auto& weights) { add_half_way(weights); });
    }
    return {coefficient, 1, pi_total * T(2)};
  }

  DISCRETE_OPS_HD void add_control(bool soft, V pi_total) {
    const V one = M::set(1), weight = -coefficient * inv_tau;
    const V of_winner = r.exponentials(0);
    if (!soft) return draw(of_winner, pi_total * T(2), [&](const auto& unnormalised) { add(weight, unnormalised); });
    V inverse;
    draw(of_winner, pi_total, [&](const auto& unnormalised) { inverse = weigh(unnormalised).inverse; });
    const V inverse_pi = M::divide(one, pi_total);
    r.each([&](auto s) { r.a(s) *= inverse; });  // the soft sample that chose D
    add(weight, [&](auto s) {
      const V p = M::exp(r.z(s)) * inverse_pi + M::select(r.winner(s), one, M::set(0));
      return p * M::exp(r.a(s));
    });
  }

  DISCRETE_OPS_HD void reinmax_rk2(V beta) {
    Mean mean;
    at_one([&](const auto& weights) { mean = weigh(weights); });
    const V inverse = mean.inverse, v_winner = winner_of_v();
    r.each([&](auto s) {
      const V pi = r.a(s) * inverse, D = M::select(r.winner(s), M::set(1), M::set(0));
      const V from_pi = deviation(s, mean) * beta, from_D = (r.v(s) - v_winner) * (M::set(1) - beta);
      r.out(s) += (pi + D) * (from_pi + from_D) - pi * from_pi;
    });
  }

  // J(pi) + a / 2 ((D - pi) (D - pi)^T - J(pi)): what a weighs is one product, in whose order 0 meets no inf.
  DISCRETE_OPS_HD void mix(V a) {
    const V half_a = a * T(0.5);
    Mean mean;
    at_one([&](const auto& weights) { mean = weigh(weights); });
    const V inverse = mean.inverse, of_winner = (winner_of_v() - mean.high) - mean.low;
    r.each([&](auto s) {
      const V pi = r.a(s) * inverse, half_D = M::select(r.winner(s), M::set(0.5), M::set(0));
      r.out(s) += pi * deviation(s, mean) + ((half_D - pi) * half_a) * (deviation(s, mean) + of_winner);
    });
  }

  DISCRETE_OPS_HD void run() {
    if constexpr (Row::kServes == Serves::kAll || Row::kServes == Serves::kMVE) {
      if (spec.estimator == kMVE) {
        if constexpr (kPullsBack) MinimumVariance<Row>{r}.run(coefficient);
        return;
      }
    }
    if constexpr (Row::kServes == Serves::kMVE) return;
    if constexpr (Row::kServes == Serves::kAll || Row::kServes == Serves::kWithoutDraws) without_draws();
    if constexpr (Row::kServes == Serves::kAll || Row::kServes == Serves::kWithDraws) with_draws();
  }

  DISCRETE_OPS_HD void without_draws() {
    switch (spec.estimator) {
      case kStraightThrough:
        return straight_through();
      case kGST:
        return gst();
      case kGSTPi:
        return gst_pi();
      default:
        if constexpr (kPullsBack) reinmax_without_draws();
    }
  }

  DISCRETE_OPS_HD void reinmax_without_draws() {
    switch (spec.estimator) {
      case kReinMaxArgmax:
        r.set_winner_argmax();
        return reinmax();
      case kReinMax:
        return reinmax();
      case kReinMaxRK2:
        return reinmax_rk2(coefficient);
      case kMix:
        return mix(coefficient);
      default:
        return;
    }
  }

  DISCRETE_OPS_HD void with_draws() {
    const Estimator estimator = spec.estimator;
    if (!takes_draws(estimator)) return;
    if constexpr (Row::kBinary) {
      if (spec.num_samples == kAllDraws) return AllDraws<Row>{r, tau}.add();
    }
    if constexpr (!kPullsBack) {
      add_draws(gumbel_rao());
    } else {
      const Draws draws = estimator == kGumbelRao    ? gumbel_rao()
                          : estimator == kReinMaxRao ? reinmax_rao()
                                                     : reinmax_cv(estimator == kReinMaxCV);
      add_draws(draws);
    }
  }
};

}  // namespace discrete_ops
