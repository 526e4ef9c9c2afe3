// The Row of surrogates.h whose elements live in the registers of a team: each thread holds kQuads quads of columns,
// quad q of a thread at place q * team.size + team.rank in the row. Where columns end, masked ones follow.
#pragma once

#include "../surrogates.h"
#include "cauchy_row.h"
#include "math.h"
#include "memory.h"
#include "team.h"
#include "tile.h"

namespace discrete_ops {
namespace cuda {

template <class Scalar, int kQuads, Mode kOfMode, Serves kServesWhat>
struct RegisterRow : SampledOnce, CauchyRow<RegisterRow<Scalar, kQuads, kOfMode, kServesWhat>> {
  using Math = cuda::Math<Scalar>;
  using T = Scalar;
  using V = Scalar;
  static constexpr Mode kMode = kOfMode;
  static constexpr bool kWithGrad = kMode == Mode::kPullBack;
  static constexpr Serves kServes = kServesWhat;
  static constexpr bool kBinary = kQuads == 1;
  static constexpr int kSteps = 4 * kQuads;
  static constexpr int kCauchySteps = serves_mve(kServes, kMode) ? kSteps : 1;
  static constexpr V kNothing = V(-0.0);  // what a sum starts with: adding to it is no instruction
  static constexpr V kLarge = sizeof(T) == 4 ? V(0x1p100) : V(0x1p960);  // less than this from any number is finite

  const Call& call;
  Team team;
  const int n;       // columns
  const int stored;  // of them in memory
  int64_t row;
  bool is_behind;       // the last row; such a team does what the last row's does, and stores nothing
  int winner_step;      // the winner's step in this thread, or none
  int winner_rank;      // the thread that has it
  bool invalid, empty;  // NaN or +inf in the row; masked whole
  uint64_t seed, local_row;
  V z_[kSteps], v_[kSteps], out_[kSteps];
  V a_[kSteps], b_[kSteps];
  V c_[kCauchySteps], u_[kCauchySteps], x_[kCauchySteps];

  explicit DISCRETE_OPS_DEVICE RegisterRow(const Call& call)
      : call(call),
        team(call.team, call.together),
        n(static_cast<int>(call.columns)),
        stored(is_binary() ? 1 : n),
        row(0) {
    find_row();
    if (is_behind) row = call.rows - 1;
  }

  DISCRETE_OPS_DEVICE void find_row() {
    row = static_cast<int64_t>(device::unknown(static_cast<uint64_t>(device::block()))) * call.block_rows +
          (team.number & (call.block_rows - 1));
    is_behind = row >= call.rows;
  }

  DISCRETE_OPS_DEVICE bool is_binary() const { return kBinary && call.spec.binary; }

  // --- the Row of surrogates.h ------------------------------------------------------------------------------------

  DISCRETE_OPS_DEVICE V& z(int s) { return z_[s]; }
  DISCRETE_OPS_DEVICE V& v(int s) { return v_[s]; }
  DISCRETE_OPS_DEVICE V& out(int s) { return out_[s]; }
  DISCRETE_OPS_DEVICE V& a(int s) { return a_[s]; }
  DISCRETE_OPS_DEVICE V& b(int s) { return b_[s]; }
  DISCRETE_OPS_DEVICE V& c(int s) { return c_[s]; }
  DISCRETE_OPS_DEVICE V& u(int s) { return u_[s]; }
  DISCRETE_OPS_DEVICE V& x(int s) { return x_[s]; }
  DISCRETE_OPS_DEVICE bool winner(int s) const { return s == winner_step; }
  DISCRETE_OPS_DEVICE int column(int s) const { return 4 * (s / 4 * team.size + team.rank) + s % 4; }

  DISCRETE_OPS_DEVICE uint32_t draw_begin() const {  // the team's draw group
    return leads() ? 0 : static_cast<uint32_t>(team.number >> device::log2_of_power(call.block_rows));
  }
  DISCRETE_OPS_DEVICE uint32_t draw_step() const { return static_cast<uint32_t>(call.draw_groups); }
  DISCRETE_OPS_DEVICE bool leads() const {
    return call.draw_groups == 1 || device::thread() < call.block_rows * call.team;
  }

  template <class F>
  DISCRETE_OPS_DEVICE void each_quad(const F& f) {
    DISCRETE_OPS_UNROLL
    for (int q = 0; q < kQuads; ++q) f(q);
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
    V even = kNothing, odd = kNothing;  // two chains of additions, for their latency
    each_quad([&](int q) {
      even += f(4 * q), odd += f(4 * q + 1);
      even += f(4 * q + 2), odd += f(4 * q + 3);
    });
    return team.reduce(even + odd, Sum{});
  }

  template <class F>
  DISCRETE_OPS_DEVICE void sum2(const F& f, V& a, V& b) {
    V even_a = kNothing, even_b = kNothing, odd_a = kNothing, odd_b = kNothing;
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

  template <class Make>
  DISCRETE_OPS_DEVICE Node<V> node(int, const Make& make) {
    return make();
  }

  DISCRETE_OPS_DEVICE V exponentials(uint32_t k) {
    // Nothing of one draw is kept for the next, but Philox's ten keys, twenty registers, by three quads, which have
    // room.
    const uint64_t key = kQuads == 3 ? seed : device::unknown(seed);
    each([&](int s) { b_[s] = device::unknown(b_[s]); });
    each_quad([&](int q) {
      uint32_t w[4];
      philox::words(key, static_cast<uint32_t>(q * team.size + team.rank), k, local_row, w);
      DISCRETE_OPS_UNROLL
      for (int i = 0; i < 4; ++i) {
        V noise;
        exponential(w[i], noise);
        a_[4 * q + i] = noise;
      }
    });
    return noise_of_winner();
  }

  DISCRETE_OPS_DEVICE V stratified_exponentials(uint32_t k, uint32_t i) {
    const uint64_t key = device::unknown(seed);
    const int rank = device::unknown(team.rank);  // nor are the places of its quads kept
    each([&](int s) { b_[s] = device::unknown(b_[s]); });
    each_quad([&](int q) {
      const uint32_t block = static_cast<uint32_t>(q * team.size + rank);
      uint32_t w[4], stratum[4];
      strata_of_block(call.spec.strata, key, block, local_row, i, stratum);
      philox::words(key, block, k, local_row, w);
      DISCRETE_OPS_UNROLL
      for (int j = 0; j < 4; ++j) {
        V noise;
        exponential(w[j], stratum[j], call.spec.strata.width, noise);
        a_[4 * q + j] = noise;
      }
    });
    return noise_of_winner();
  }

  // a of the winner: its place in a quad, from the quad that has it.
  DISCRETE_OPS_DEVICE V noise_of_winner() {
    V quad[4] = {a_[0], a_[1], a_[2], a_[3]};
    DISCRETE_OPS_UNROLL
    for (int s = 4; s < kSteps; ++s) quad[s % 4] = winner_step / 4 == s / 4 ? a_[s] : quad[s % 4];
    const bool odd = winner_step & 1, upper = winner_step & 2;
    const V low = odd ? quad[1] : quad[0], high = odd ? quad[3] : quad[2];
    return team.broadcast(upper ? high : low, winner_rank);
  }

  // --- loading and storing ----------------------------------------------------------------------------------------

  DISCRETE_OPS_DEVICE V parameter(Parameter p) const { return static_cast<T>(call.parameter(row, p)); }

  // z and, where there is one, v, as they are; from quad `first` on, `stride` apart, of which those from the `ends`-th
  // on may lie behind the last column.
  DISCRETE_OPS_DEVICE void read(int first, int stride, int ends) {
    const void* logits = row_of(call.logits, row);
    const void* grad = kWithGrad ? row_of(call.grad, row) : nullptr;
    if (call.tiles != Tiles::kNone) {
      Tile<T, kQuads> of_logits(call.logits, call, 0);
      of_logits.load(of_logits.global), logits = of_logits.at(call, row);
      if constexpr (kWithGrad) {
        Tile<T, kQuads> of_grad(call.grad, call, 1);
        of_grad.load(of_grad.global), grad = of_grad.at(call, row);
        of_grad.store(of_grad.global, of_grad.shared);
      }
      of_logits.store(of_logits.global, of_logits.shared);
      device::block_barrier();
    }
    with_columns(ends, [&](const Columns<int>& columns) {
      load_quads<T, kQuads>(call.logits, logits, call.logits_width, first, stride, columns, -Math::kInf, z_);
      if constexpr (kWithGrad) {
        load_quads<T, kQuads>(call.grad, grad, call.grad_width, first, stride, columns, T(0), v_);
      }
    });
  }

  // f of the columns in memory; where the team has a place for each and no more, no quad needs a test.
  template <class F>
  DISCRETE_OPS_DEVICE void with_columns(int ends, const F& f) {
    if (stored == kSteps * team.size) {
      f(Columns<int>{stored, kQuads});
    } else {
      f(Columns<int>{stored, ends});
    }
  }

  DISCRETE_OPS_DEVICE void load() {
    read(team.rank, team.size, kQuads - 1);
    if (is_binary()) {
      add_other_category();
    } else {
      const V top = highest();
      subtract(top, top > kLarge);
    }
    if constexpr (kWithGrad) {
      const V scale = static_cast<T>(call.grad_scale);
      each([&](int s) { v_[s] *= scale; });
      V least = stored < kSteps * team.size ? -Math::kInf : V(0);  // so are places without a column
      if (least == 0) each([&](int s) { least = Math::min(least, z_[s]); });
      if (least == -Math::kInf) each([&](int s) { v_[s] = z_[s] == -Math::kInf ? T(0) : v_[s]; });
    }
  }

  // z of a binary variable. Of +inf the other category is masked; where the outcome is certain there is no gradient.
  DISCRETE_OPS_DEVICE void add_other_category() {
    const V l = z_[0];
    invalid = l != l, empty = false;
    z_[0] = invalid ? T(0) : Math::min(l, T(0)), z_[1] = invalid ? T(0) : Math::min(-l, T(0));
    if constexpr (kWithGrad) v_[0] = z_[1] == -Math::kInf ? T(0) : v_[0];
  }

  // The row's maximum, while z holds the logits. A row without a sample computes on NaN; store() overwrites it.
  DISCRETE_OPS_DEVICE V highest() {
    V top = -Math::kInf;
    each([&](int s) { top = device::greater_or_nan(top, z_[s]); });
    top = team.reduce(top, GreaterOrNaN{});
    invalid = !(top < Math::kInf);
    empty = top == -Math::kInf;
    return top;
  }

  // `far`: whether a difference may lie beyond the finite range, where it would be taken for a mask.
  DISCRETE_OPS_DEVICE void subtract(V top, bool far) {
    if (far) {
      each([&](int s) { z_[s] = z_[s] == -Math::kInf ? -Math::kInf : Math::max(z_[s] - top, Math::kLowest); });
    } else {
      each([&](int s) { z_[s] -= top; });
    }
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

  DISCRETE_OPS_DEVICE void restore_scale() {
    const V scale = static_cast<T>(call.inverse_grad_scale);
    each([&](int s) { out_[s] *= scale; });
  }

  // Of a row without a sample.
  DISCRETE_OPS_DEVICE void replace_undefined() {
    if (invalid || empty) {
      each([&](int s) { out_[s] = invalid ? static_cast<T>(__builtin_nan("")) : T(0); });
    }
  }

  DISCRETE_OPS_DEVICE void store() {
    if constexpr (kServes == Serves::kWithDraws) find_row();  // not kept in registers through the draws
    if (call.tiles == Tiles::kNone) return store_at(row_of_contiguous(call.out, row));
    Tile<T, kQuads> tile(call.out, call, 0);
    device::block_barrier();  // every thread has read the logits, which lay there
    store_at(tile.at(call, row));
    device::block_barrier();
    tile.load(tile.shared);
    tile.store(tile.shared, tile.global);
  }

  DISCRETE_OPS_DEVICE void store_at(void* at) {
    if (is_behind || !leads()) return;
    with_columns(kQuads - 1, [&](const Columns<int>& columns) {
      store_quads<T, kQuads>(call.out, at, call.out_width, team.rank, team.size, columns, out_);
    });
  }
};

// Draw the winner of a row: inverse CDF, accumulated in double. Here a thread holds adjacent quads, so that one scan
// over the team finds the thread that has the target, and that one alone looks for the column.
template <class Row>
DISCRETE_OPS_DEVICE void sample_register_row(Row& r) {
  using T = typename Row::T;
  using M = typename Row::Math;
  constexpr int kQuads = Row::kSteps / 4;
  const int first_column = r.team.rank * Row::kSteps;
  const T rate = static_cast<T>(r.call.sample_rate(r.row));
  r.read(r.team.rank * kQuads, 1, r.team.size == 1 ? kQuads - 1 : 0);
  if (r.is_binary()) {
    r.add_other_category();
  } else {
    r.subtract(r.highest(), rate < T(0x1p-90));  // at any other rate its weight is 0
  }
  r.invalid = r.invalid || rate != rate;
  r.each([&](int s) { r.a(s) = M::share(r.z(s), rate); });
  double of_quad[kQuads], of_thread = 0;
  r.each_quad([&](int q) {
    of_quad[q] = (double{r.a(4 * q)} + r.a(4 * q + 1)) + (double{r.a(4 * q + 2)} + r.a(4 * q + 3));
    of_thread += of_quad[q];
  });
  const Team::Sums sums = r.team.sums(device::unknown(of_thread));  // else the scan adds it up again
  const double target = philox::uniform(r.seed, r.local_row) * sums.total;
  constexpr uint32_t kNone = ~0u;
  uint32_t index = kNone;
  if (sums.before <= target && target < sums.through) {
    double cdf = sums.before;
    int passed = 0;
    T weight[4] = {r.a(0), r.a(1), r.a(2), r.a(3)};
    DISCRETE_OPS_UNROLL
    for (int q = 1; q < kQuads; ++q) {
      const double next = cdf + of_quad[q - 1];
      if (next > target) break;
      cdf = next, passed += 4;
      DISCRETE_OPS_UNROLL
      for (int i = 0; i < 4; ++i) weight[i] = r.a(4 * q + i);
    }
    int beyond = 0;
    DISCRETE_OPS_UNROLL
    for (int i = 0; i < 4; ++i) cdf += device::unknown(weight[i]), beyond += cdf <= target;  // of four, not of all
    if (beyond < 4) index = static_cast<uint32_t>(first_column + passed + beyond);
  }
  index = r.team.reduce(index, Min{});
  if (device::any(index == kNone)) {  // rounding left the target beyond the end: the last column of positive weight
    int last = 0;
    r.each([&](int s) { last = r.a(s) > 0 ? first_column + s : last; });
    last = r.team.reduce(last, Max{});
    index = index == kNone ? static_cast<uint32_t>(last) : index;
  }
  r.set_winner(index);
  const T other = r.invalid ? static_cast<T>(__builtin_nan("")) : T(0), one = r.invalid || r.empty ? other : T(1);
  r.each([&](int s) { r.out(s) = r.winner(s) ? one : other; });
  r.store();
  if (r.team.rank == 0 && !r.is_behind) {
    r.call.index[r.row] = r.invalid || r.empty ? -1 : static_cast<int64_t>(index);
  }
}

}  // namespace cuda
}  // namespace discrete_ops
