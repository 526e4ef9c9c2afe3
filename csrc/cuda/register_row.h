// The Row of surrogates.h whose elements live in the registers of a team: each thread holds kQuads quads of columns,
// quad q of a thread at place q * team.size + team.rank in the row.
#pragma once

#include "../surrogates.h"
#include "math.h"
#include "memory.h"
#include "team.h"

namespace discrete_ops {
namespace cuda {

template <class Scalar, int kQuads, bool kSoftSample, Serves kServesWhat>
struct RegisterRow {
  using Math = cuda::Math<Scalar>;
  using T = Scalar;
  using V = Scalar;
  static constexpr bool kSoft = kSoftSample;
  static constexpr Serves kServes = kServesWhat;
  static constexpr int kSteps = 4 * kQuads;

  const Call& call;
  Team team;
  const int n, quads;     // columns; quads a thread, at most kQuads
  const int group;        // of draws
  const int64_t own_row;  // may lie behind the last row,
  const int64_t row;      // then it does what the last row's team does, and stores nothing
  int winner_step;        // the winner's step in this thread, or none
  int winner_rank;        // the thread that has it
  bool invalid, empty;    // NaN or +inf in the row; masked whole
  uint64_t seed, local_row;
  V z_[kSteps], v_[kSteps], out_[kSteps];
  V a_[kSteps], b_[kSteps], c_[kSteps], d_[kSteps], e_[kSteps];

  explicit DISCRETE_OPS_DEVICE RegisterRow(const Call& call)
      : call(call),
        team(call.team),
        n(static_cast<int>(call.columns)),
        quads((n + 4 * team.size - 1) >> (team.bits + 2)),
        group(team.number >> device::log2_of_power(call.block_rows)),
        own_row(device::block() * call.block_rows + (team.number & (call.block_rows - 1))),
        row(own_row < call.rows ? own_row : call.rows - 1) {}

  // --- the Row of surrogates.h ------------------------------------------------------------------------------------

  DISCRETE_OPS_DEVICE V& z(int s) { return z_[s]; }
  DISCRETE_OPS_DEVICE V& v(int s) { return v_[s]; }
  DISCRETE_OPS_DEVICE V& out(int s) { return out_[s]; }
  DISCRETE_OPS_DEVICE V& a(int s) { return a_[s]; }
  DISCRETE_OPS_DEVICE V& b(int s) { return b_[s]; }
  DISCRETE_OPS_DEVICE V& c(int s) { return c_[s]; }
  DISCRETE_OPS_DEVICE V& d(int s) { return d_[s]; }
  DISCRETE_OPS_DEVICE V& e(int s) { return e_[s]; }
  DISCRETE_OPS_DEVICE bool winner(int s) const { return s == winner_step; }
  DISCRETE_OPS_DEVICE int column(int s) const { return 4 * (s / 4 * team.size + team.rank) + s % 4; }

  DISCRETE_OPS_DEVICE int64_t draw_begin() const { return group; }
  DISCRETE_OPS_DEVICE int64_t draw_step() const { return call.draw_groups; }
  DISCRETE_OPS_DEVICE bool leads() const { return group == 0; }

  // f(quad) for the quads that hold columns; the branch is the same for every thread of the launch.
  template <class F>
  DISCRETE_OPS_DEVICE void each_quad(const F& f) {
    DISCRETE_OPS_UNROLL
    for (int q = 0; q < kQuads; ++q) {
      if (q < quads) f(q);
    }
  }

  template <class F>
  DISCRETE_OPS_DEVICE void each(const F& f) {
    each_quad([&](int q) {
      DISCRETE_OPS_UNROLL
      for (int i = 0; i < 4; ++i) f(4 * q + i);
    });
  }

  template <class F>
  DISCRETE_OPS_DEVICE V sum(const F& f) {
    V even = 0, odd = 0;  // two chains of additions, for their latency
    each_quad([&](int q) {
      even += f(4 * q), odd += f(4 * q + 1);
      even += f(4 * q + 2), odd += f(4 * q + 3);
    });
    return team.reduce(even + odd, Sum{});
  }

  template <class F>
  DISCRETE_OPS_DEVICE void sum2(const F& f, V& a, V& b) {
    V even_a = 0, even_b = 0, odd_a = 0, odd_b = 0;
    each_quad([&](int q) {
      DISCRETE_OPS_UNROLL
      for (int i = 0; i < 4; i += 2) {
        V x, y;
        f(4 * q + i, x, y);
        even_a += x, even_b += y;
        f(4 * q + i + 1, x, y);
        odd_a += x, odd_b += y;
      }
    });
    a = even_a + odd_a, b = even_b + odd_b;
    team.reduce2(a, b, Sum{});
  }

  template <class F>
  DISCRETE_OPS_DEVICE V max(const F& f) {
    V top = -Math::kInf;
    each([&](int s) { top = Math::max(top, f(s)); });
    return team.reduce(top, Max{});
  }

  DISCRETE_OPS_DEVICE void set_winner_argmax() {
    int first = n;
    each([&](int s) { first = z_[s] == T(0) && column(s) < first ? column(s) : first; });
    set_winner(team.reduce(first, Min{}));
  }

  DISCRETE_OPS_DEVICE V exponentials(uint32_t k) {
    V of_winner = 1;
    each_quad([&](int q) {
      uint32_t w[4];
      philox::words(seed, static_cast<uint32_t>(q * team.size + team.rank), k, local_row, w);
      DISCRETE_OPS_UNROLL
      for (int i = 0; i < 4; ++i) {
        V noise;
        exponential(w[i], noise);
        e_[4 * q + i] = noise;
        of_winner = winner(4 * q + i) ? noise : of_winner;
      }
    });
    return team.broadcast(of_winner, winner_rank);
  }

  // --- loading and storing ----------------------------------------------------------------------------------------

  template <bool kWithGrad>
  DISCRETE_OPS_DEVICE void load() {
    load_quads<T, kQuads>(call.logits, call.logits_width, row, team.rank, team.size, n, -Math::kInf, z_);
    if constexpr (kWithGrad) {
      load_quads<T, kQuads>(call.grad, call.grad_width, row, team.rank, team.size, n, T(0), v_);
    }
    const V top = max([&](int s) { return z_[s] < Math::kInf ? z_[s] : Math::kInf; });
    invalid = top == Math::kInf;  // +inf, or a NaN that was taken for it
    empty = top == -Math::kInf;
    each([&](int s) {
      const V z = z_[s] == -Math::kInf ? -Math::kInf : Math::max(z_[s] - top, Math::kLowest);
      z_[s] = invalid || empty ? T(0) : z;  // such a row computes on zeros; store() overwrites it
      if constexpr (kWithGrad) v_[s] = z_[s] == -Math::kInf ? T(0) : v_[s];
    });
  }

  DISCRETE_OPS_DEVICE void set_winner(int64_t index) {
    const int column = index > 0 && index < n ? static_cast<int>(index) : 0, quad = column / 4;
    winner_rank = quad & (team.size - 1);
    winner_step = winner_rank == team.rank ? 4 * (quad >> team.bits) + column % 4 : kSteps;
  }

  DISCRETE_OPS_DEVICE void prepare_noise() { seed = call.seed_of(row, local_row); }

  // Add the other groups' `out` to that of the first, in order.
  DISCRETE_OPS_DEVICE void combine_draw_groups() {
    if (call.draw_groups == 1) return;
    T* const shared = reinterpret_cast<T*>(device::shared_memory() + kSlotBytes);
    const int group_threads = call.block_rows * team.size;
    each([&](int s) {
      shared[device::thread()] = out_[s];
      device::block_barrier();
      for (int g = 1; leads() && g < call.draw_groups; ++g) out_[s] += shared[device::thread() + g * group_threads];
      device::block_barrier();
    });
  }

  DISCRETE_OPS_DEVICE void store() {
    if (own_row >= call.rows || !leads()) return;
    each([&](int s) { out_[s] = invalid ? static_cast<T>(__builtin_nan("")) : empty ? T(0) : out_[s]; });
    store_quads<T, kQuads>(call.out, call.out_width, row, team.rank, team.size, n, out_);
  }
};

// Draw the winner of a row: inverse CDF, accumulated in double.
template <class Row>
DISCRETE_OPS_DEVICE void sample_register_row(Row& r) {
  using T = typename Row::T;
  constexpr int kQuads = Row::kSteps / 4;
  double below[kQuads], total = 0;  // the CDF before each quad
  r.each([&](int s) { r.a(s) = Row::Math::exp(r.z(s)); });
  r.each_quad([&](int q) {
    const double sum =
        (static_cast<double>(r.a(4 * q)) + r.a(4 * q + 1)) + (static_cast<double>(r.a(4 * q + 2)) + r.a(4 * q + 3));
    double of_quads;
    below[q] = total + r.team.sum_before(sum, of_quads);
    total += of_quads;
  });
  const double target = philox::uniform(r.seed, r.local_row) * total;
  // The first column whose CDF lies above the target; where rounding leaves none, the last of positive weight. As one
  // minimum: the columns, then from behind those that were not hit.
  uint32_t first = ~0u;
  r.each_quad([&](int q) {
    double cdf = below[q];
    DISCRETE_OPS_UNROLL
    for (int i = 0; i < 4; ++i) {
      const T weight = r.a(4 * q + i);
      cdf += weight;
      const uint32_t column = static_cast<uint32_t>(r.column(4 * q + i));
      const uint32_t key = cdf > target ? column : 2u * static_cast<uint32_t>(r.n) - 1 - column;
      if (weight > 0 && key < first) first = key;
    }
  });
  first = r.team.reduce(first, Min{});
  const uint32_t n = static_cast<uint32_t>(r.n);
  const int64_t index = first < n ? first : 2 * n - 1 - first;
  r.each([&](int s) { r.out(s) = r.column(s) == index ? T(1) : T(0); });
  r.store();
  if (r.team.rank == 0 && r.own_row < r.call.rows) r.call.index[r.row] = r.invalid || r.empty ? -1 : index;
}

}  // namespace cuda
}  // namespace discrete_ops
