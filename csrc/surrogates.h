// The estimators on one row (or one bundle of rows), for host and device: mirrors discrete_ops/reference.py.
//
// Every estimator is a weighted sum of softmax Jacobian products J(p, q; v) = p (v - <q, v>). It is written once,
// over a Row that the backend provides:
//
//   V, Mask, Math       a value per step (a SIMD vector on CPU, one number a thread on CUDA), its comparison, its maths
//   each(f)             f(step) for every step of the row
//   sum2(f, a, b)       f(step, wa, wb) gives two values; a and b become their sums over the row
//   max(f)              the maximum of f(step) over the row
//   z(s), v(s)          logits minus their maximum (-inf where masked), incoming gradient (0 where masked)
//   winner(s)           whether this is the sampled category
//   set_winner_argmax() from now on it is the first argmax of the logits
//   exponentials(k)     e(s) becomes draw k of the row's exponential noise; returns the winner's
//   a(s) .. d(s), e(s)  scratch: a holds a term's weights, b and c what outlives it, d and e the conditional Gumbels
//   out(s)              the result
//   kSoft               accumulate tau * weight * p (the soft sample) instead of weight * J(p, q; v)
#pragma once

#include "estimators.h"
#include "philox.h"

namespace discrete_ops {

template <class Row>
struct Surrogate {
  using V = typename Row::V;
  using M = typename Row::Math;
  using T = typename M::T;

  Row& r;
  const Spec& spec;
  const V tau, inv_tau;  // one temperature a row

  // --- terms ------------------------------------------------------------------------------------------------------

  // 1 / the weights' total, and <p, v> as a sum of two: rounding <p, v> alone would cost v - <p, v> more than anything
  // else does.
  struct Mean {
    V inverse, high, low;
  };
  DISCRETE_OPS_HD V deviation(int64_t s, const Mean& mean) { return (r.v(s) - mean.high) - mean.low; }

  // a = unnormalised(step), and the mean of v under it.
  template <class F>
  DISCRETE_OPS_HD Mean weigh(const F& unnormalised) {
    V total, dot;
    r.sum2(
        [&](auto s, V& w, V& wv) {
          w = unnormalised(s);
          r.a(s) = w;
          wv = w * r.v(s);
        },
        total, dot);
    Mean mean{T(1) / total, M::set(0), M::set(0)};
    if constexpr (!Row::kSoft) {
      mean.high = dot * mean.inverse;
      mean.low = sum([&](auto s) { return r.a(s) * (r.v(s) - mean.high); }) * mean.inverse;
    }
    return mean;
  }

  // out += weight * J(p; v) with p = w / sum w, w = unnormalised(step).
  template <class F>
  DISCRETE_OPS_HD void add(V weight, const F& unnormalised) {
    const Mean mean = weigh(unnormalised);
    if constexpr (Row::kSoft) {
      const V share = tau * weight * mean.inverse;  // in this order no factor leaves the normal range
      r.each([&](auto s) { r.out(s) += share * r.a(s); });
    } else {
      const V scale = weight * mean.inverse;
      r.each([&](auto s) { r.out(s) += scale * r.a(s) * deviation(s, mean); });
    }
  }

  // out += 2 J((softmax(l / tau) + D) / 2; v).
  DISCRETE_OPS_HD void add_half_way(V temperature_inverse) {
    const Mean mean = weigh([&](auto s) { return M::exp(r.z(s) * temperature_inverse); });
    const V v_winner = winner_of_v(), half_inverse = mean.inverse * T(0.5);
    r.each([&](auto s) {
      const V half_p_plus_D = r.a(s) * half_inverse + M::select(r.winner(s), M::set(0.5), M::set(0));
      r.out(s) += half_p_plus_D * (deviation(s, mean) + (r.v(s) - v_winner));
    });
  }

  DISCRETE_OPS_HD V winner_of_v() {
    return sum([&](auto s) { return M::select(r.winner(s), r.v(s), M::set(0)); });
  }

  template <class F>
  DISCRETE_OPS_HD V sum(const F& f) {
    V total, unused;
    r.sum2([&](auto s, V& a, V& b) { a = f(s), b = M::set(0); }, total, unused);
    return total;
  }

  // --- conditional Gumbels ----------------------------------------------------------------------------------------

  // Prepare draws of softmax(Y(l, D) / tau) for probabilities proportional to exp(y_j) off the winner. Keeps exp(-y_j)
  // as d = exp(-max(y, -limit)), with the rest of the exponent in b, so that nothing overflows. Returns sum exp(y).
  template <class F>
  DISCRETE_OPS_HD V prepare(const F& log_weight) {
    return sum([&](auto s) {
      const V y = log_weight(s), bounded = M::max(y, M::set(-M::kConditionalLimit)), weight = M::exp(bounded);
      r.d(s) = T(1) / weight;
      r.b(s) = bounded - y;
      return weight;
    });
  }

  // Draw k's weights (1 + (E_j / E_i) exp(-lp_j)) ** (-1/tau), 1 at the winner, as a function of the step;
  // exp(lp_j) = exp(y_j) / partition.
  template <class Use>
  DISCRETE_OPS_HD void draw(int64_t k, V partition, const Use& use) {
    const V inverse = partition / r.exponentials(static_cast<uint32_t>(k)), rate = inv_tau * T(-1.44269504088896340736);
    if (M::all(tau == M::set(1))) {  // half the work at the commonest temperature
      use([&](auto s) {
        const V weight = T(1) / (T(1) + r.e(s) * inverse * r.d(s));
        return M::select(r.winner(s), M::set(1), M::select(r.b(s) > M::set(0), M::set(0), weight));
      });
    } else {
      use([&](auto s) {
        const V lag = M::log1p(r.e(s) * inverse * r.d(s)) + r.b(s);  // Y_i - Y_j
        return M::select(r.winner(s), M::set(1), M::exp2(lag * rate));
      });
    }
  }

  // out += weight / (K tau) * sum over draws of J.
  DISCRETE_OPS_HD void add_draws(T weight, int64_t first, V partition) {
    const V each = inv_tau * T(weight / static_cast<double>(spec.num_samples));
    for (int64_t k = first; k < first + spec.num_samples; ++k) {
      draw(k, partition, [&](const auto& unnormalised) { add(each, unnormalised); });
    }
  }

  // --- estimators -------------------------------------------------------------------------------------------------

  DISCRETE_OPS_HD void straight_through(T weight, V temperature_inverse) {
    const V rate = temperature_inverse;
    add(rate * weight, [&, rate](auto s) { return M::exp(r.z(s) * rate); });
  }

  DISCRETE_OPS_HD void gumbel_rao() {
    const V partition = prepare([&](auto s) { return r.z(s); });
    add_draws(1, 0, partition);
  }

  DISCRETE_OPS_HD void gst(V gap) {
    add(inv_tau, [&](auto s) {
      const V h = M::select(r.winner(s), M::set(0), M::min(r.z(s), -gap));
      return M::exp(h * inv_tau);
    });
  }

  // softplus(a) / sigmoid(a), a = l_i - logsumexp_{j != i} l_j: Lemma 1 of GST.
  DISCRETE_OPS_HD V pi_gap() {
    const V lowest = M::set(-M::kInf);
    const auto other = [&](auto s) { return M::select(r.winner(s), lowest, r.z(s)); };
    const V top = r.max(other);
    const V z_winner = r.max([&](auto s) { return M::select(r.winner(s), r.z(s), lowest); });
    const auto alone = top == lowest;
    const V shift = M::select(alone, M::set(0), top);
    const V others = sum([&](auto s) { return M::exp(other(s) - shift); });
    const V log_others = M::select(alone, lowest, M::log1p(M::max(others - T(1), M::set(0))) + shift);
    const V a = z_winner - log_others;
    const V x = M::max(M::exp(M::min(a, -a)), M::set(T(1e-30)));
    const V l = M::log1p(x);
    return (x + T(1)) * M::select(a > M::set(0), a + l, l / x);
  }

  DISCRETE_OPS_HD void reinmax() {
    if (M::all(tau == M::set(1))) return reinmax_rk2(T(0.5));  // the same, with one softmax
    add_half_way(inv_tau);
    straight_through(T(-0.5), M::set(1));
  }

  DISCRETE_OPS_HD void reinmax_rao() {
    const V partition = prepare([&](auto s) { return r.z(s) * inv_tau; });
    add_draws(2, 0, partition * T(2));  // off the winner p_D is pi_t / 2
    straight_through(T(-0.5), M::set(1));
  }

  DISCRETE_OPS_HD void reinmax_cv(bool soft) {
    const V one = M::set(1), eta = M::set(static_cast<T>(spec.coefficient));
    add_half_way(one);
    const V pi_total = prepare([&](auto s) { return r.z(s); });
    if (soft) {
      V inverse;
      draw(0, pi_total, [&](const auto& unnormalised) { inverse = weigh(unnormalised).inverse; });
      const V inverse_pi = T(1) / pi_total;
      r.each([&](auto s) { r.c(s) = r.a(s) * inverse; });  // the soft sample that chose D
      add(-eta, [&](auto s) {
        const V p = M::exp(r.z(s)) * inverse_pi + M::select(r.winner(s), one, M::set(0));
        return p * M::exp(r.c(s));
      });
    } else {
      draw(0, pi_total * T(2), [&](const auto& unnormalised) { add(-eta * inv_tau, unnormalised); });
    }
    add_draws(static_cast<T>(spec.coefficient), 1, pi_total * T(2));
    straight_through(T(-0.5), one);
  }

  DISCRETE_OPS_HD void reinmax_rk2(T beta) {
    const Mean mean = weigh([&](auto s) { return M::exp(r.z(s)); });
    const V inverse = mean.inverse, v_winner = winner_of_v();
    r.each([&](auto s) {
      const V pi = r.a(s) * inverse, D = M::select(r.winner(s), M::set(1), M::set(0));
      const V from_pi = deviation(s, mean) * beta, from_D = (r.v(s) - v_winner) * (T(1) - beta);
      r.out(s) += (pi + D) * (from_pi + from_D) - pi * from_pi;
    });
  }

  DISCRETE_OPS_HD void run() {
    switch (spec.estimator) {
      case kStraightThrough:
        return straight_through(T(1), inv_tau);
      case kGumbelRao:
        return gumbel_rao();
      case kGST:
        return gst(M::set(static_cast<T>(spec.coefficient)));
      case kGSTPi:
        return gst(pi_gap());
      case kReinMaxArgmax:
        r.set_winner_argmax();
        return reinmax();
      case kReinMax:
        return reinmax();
      case kReinMaxRao:
        return reinmax_rao();
      case kReinMaxCV:
        return reinmax_cv(true);
      case kReinMaxCVGumbel:
        return reinmax_cv(false);
      case kReinMaxRK2:
        return reinmax_rk2(static_cast<T>(spec.coefficient));
      default:
        return;
    }
  }
};

}  // namespace discrete_ops
