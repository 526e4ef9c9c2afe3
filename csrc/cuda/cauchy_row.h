// What a Row of CUDA has for MVE: the functions of cauchy.h made anew wherever they are needed, one term after the
// other. Memory for all of them a thread has not; a division it has.
#pragma once

#include "../surrogates.h"
#include "device.h"

namespace discrete_ops {
namespace cuda {

constexpr bool serves_mve(Serves serves, Mode mode) {
  return (serves == Serves::kAll || serves == Serves::kMVE) && mode == Mode::kPullBack;
}

// Row has u(s) and x(s), scratch.
template <class Row>
struct CauchyRow {
  DISCRETE_OPS_DEVICE Row& row() { return static_cast<Row&>(*this); }

  template <class Terms>
  DISCRETE_OPS_DEVICE void prepare_cauchy(const Terms&) {}

  // f(k) for each term, with u(s) its function.
  template <class Terms, class F>
  DISCRETE_OPS_DEVICE void each_term(const Terms& terms, const F& f) {
    using M = typename Row::Math;
    using T = typename Row::T;
    Row& r = row();
    r.each([&](auto s) { r.u(s) = 1; });
    DISCRETE_OPS_ROLLED
    for (int k = 0; k < terms.count; ++k) {
      const auto shift = terms.shift[k];
      r.each([&](auto s) { r.u(s) *= M::divide(T(1), (terms.t * r.a(s) + T(0.5)) + shift); });
      f(k);
      r.each([&](auto s) { r.u(s) *= (terms.t * r.a(s) + T(0.5)) - shift; });
    }
  }

  template <class Terms, class F, class V>
  DISCRETE_OPS_DEVICE void moments(const Terms& terms, const F& f, V* h) {
    Row& r = row();
    r.each([&](auto s) { r.x(s) = f(s); });
    each_term(terms, [&](int k) { h[k] = r.sum([&](auto s) { return r.u(s) * r.x(s); }); });
  }

  template <class Terms, class V, class F>
  DISCRETE_OPS_DEVICE void expand(const Terms& terms, const V* h, const F& f) {
    Row& r = row();
    r.each([&](auto s) { r.x(s) = 0; });
    each_term(terms, [&](int k) {
      const V weight = h[k];
      r.each([&](auto s) { r.x(s) += r.u(s) * weight; });
    });
    r.each([&](auto s) { f(s, r.x(s)); });
  }
};

}  // namespace cuda
}  // namespace discrete_ops
