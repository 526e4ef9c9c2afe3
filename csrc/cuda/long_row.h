// The Row of surrogates.h for rows beyond the registers: a block, or a crew of them, walks over the row, which lies in
// shared memory, and what finds no room there in a workspace. A step is a round and a place in the quad that the thread
// takes in it. Sums are taken in double across quads.
#pragma once

#include "../surrogates.h"
#include "cauchy_row.h"
#include "math.h"
#include "memory.h"
#include "team.h"

namespace discrete_ops {
namespace cuda {

template <class Scalar, Mode kOfMode, Serves kServesWhat>
struct LongRow : TakesAllDraws, CauchyRow<LongRow<Scalar, kOfMode, kServesWhat>> {
  using Math = cuda::Math<Scalar>;
  using T = Scalar;
  using V = Scalar;
  static constexpr Mode kMode = kOfMode;
  static constexpr bool kBinary = false;
  static constexpr Serves kServes = kServesWhat;
  static constexpr int kArrays = kServes == Serves::kNone           ? kLongRowArraysOfSample
                                 : serves_mve(kServes, kMode)       ? kLongRowArraysWithMVE
                                 : kServes == Serves::kWithoutDraws ? kLongRowArrays
                                                                    : kLongRowArraysWithDraws;

  struct Step {
    int round, place;
  };

  static DISCRETE_OPS_DEVICE int lesser(int a, int b) { return a < b ? a : b; }

  const Call& call;
  Crew crew;
  const int64_t n;                 // columns
  const int first_quad, end_quad;  // the quads of this block
  int64_t row = 0, winner_ = 0;
  bool invalid = false, empty = false;
  uint64_t seed = 0, local_row = 0;
  // Where this thread's part of the block's arrays would begin if all were in shared memory, or in the workspace: one
  // index serves both, and no access comes before what is there.
  T *const shared, *const scratch;

  explicit DISCRETE_OPS_DEVICE LongRow(const Call& call)
      : call(call),
        crew(call),
        n(call.columns),
        first_quad(crew.rank * call.rounds * kLongThreads),
        end_quad(lesser(first_quad + call.rounds * kLongThreads, static_cast<int>((n + 3) / 4))),
        shared(reinterpret_cast<T*>(device::shared_memory() + kSharedBytes) + device::thread()),
        scratch(static_cast<T*>(call.workspace) +
                (device::block() * (kArrays - call.shared_arrays) - call.shared_arrays) * call.rounds * kRound +
                device::thread()) {}

  // --- the Row of surrogates.h ------------------------------------------------------------------------------------

  DISCRETE_OPS_DEVICE V& at(int array, Step s) {
    T* const arrays = array < call.shared_arrays ? shared : scratch;
    return arrays[(array * call.rounds + s.round) * kRound + s.place * kLongThreads];
  }
  // The first ones are the likeliest in shared memory; of z draws have no more use.
  DISCRETE_OPS_DEVICE V& a(Step s) { return at(0, s); }
  DISCRETE_OPS_DEVICE V& v(Step s) { return at(1, s); }
  DISCRETE_OPS_DEVICE V& out(Step s) { return at(2, s); }
  DISCRETE_OPS_DEVICE V& b(Step s) { return at(3, s); }
  DISCRETE_OPS_DEVICE V& c(Step s) { return at(4, s); }
  DISCRETE_OPS_DEVICE V& u(Step s) { return at(5, s); }
  DISCRETE_OPS_DEVICE V& x(Step s) { return at(6, s); }
  DISCRETE_OPS_DEVICE V& z(Step s) { return at(kArrays - 1, s); }
  DISCRETE_OPS_DEVICE int quad(int round) const { return first_quad + round * kLongThreads + crew.block.rank; }
  DISCRETE_OPS_DEVICE int64_t column(Step s) const { return 4 * int64_t{quad(s.round)} + s.place; }
  DISCRETE_OPS_DEVICE bool winner(Step s) const { return column(s) == winner_; }

  template <class F>
  DISCRETE_OPS_DEVICE void each_quad(const F& f) {
    for (int round = 0; quad(round) < end_quad; ++round) f(round);
  }

  template <class F>
  DISCRETE_OPS_DEVICE void each(const F& f) {
    each_quad([&](int round) {
      DISCRETE_OPS_UNROLL
      for (int i = 0; i < 4; ++i) f(Step{round, i});
    });
  }

  template <class F>
  DISCRETE_OPS_DEVICE V sum(const F& f) {
    double total = 0;
    each_quad([&](int r) { total += (f(Step{r, 0}) + f(Step{r, 1})) + (f(Step{r, 2}) + f(Step{r, 3})); });
    return static_cast<T>(crew.reduce(total, Sum{}));
  }

  template <class F>
  DISCRETE_OPS_DEVICE void sum2(const F& f, V& a, V& b) {
    double total_a = 0, total_b = 0;
    each_quad([&](int round) {
      V x[4], y[4];
      DISCRETE_OPS_UNROLL
      for (int i = 0; i < 4; ++i) f(Step{round, i}, x[i], y[i]);
      total_a += (x[0] + x[1]) + (x[2] + x[3]);
      total_b += (y[0] + y[1]) + (y[2] + y[3]);
    });
    crew.sum2(total_a, total_b);
    a = static_cast<T>(total_a), b = static_cast<T>(total_b);
  }

  template <class F>
  DISCRETE_OPS_DEVICE V max(const F& f) {
    V most = -Math::kInf;
    each([&](Step s) { most = Math::max(most, f(s)); });
    return static_cast<T>(crew.reduce(most, Max{}));
  }

  DISCRETE_OPS_DEVICE void set_winner_argmax() {
    double first = static_cast<double>(n);
    each([&](Step s) {
      if (z(s) == T(0) && static_cast<double>(column(s)) < first) first = static_cast<double>(column(s));
    });
    winner_ = static_cast<int64_t>(crew.reduce(first, Min{}));
  }

  DISCRETE_OPS_DEVICE V exponentials(uint32_t k) {
    double of_winner = 0;
    each_quad([&](int round) {
      uint32_t w[4];
      philox::words(seed, static_cast<uint32_t>(quad(round)), k, local_row, w);
      DISCRETE_OPS_UNROLL
      for (int i = 0; i < 4; ++i) {
        V noise;
        exponential(w[i], noise);
        a(Step{round, i}) = noise;
        if (winner(Step{round, i})) of_winner = noise;
      }
    });
    return static_cast<T>(crew.reduce(of_winner, Sum{}));
  }

  DISCRETE_OPS_DEVICE V stratified_exponentials(uint32_t k, uint32_t i) {
    double of_winner = 0;
    each_quad([&](int round) {
      const auto block = static_cast<uint32_t>(quad(round));
      uint32_t w[4], stratum[4];
      strata_of_block(call.spec.strata, seed, block, local_row, i, stratum);
      philox::words(seed, block, k, local_row, w);
      DISCRETE_OPS_UNROLL
      for (int j = 0; j < 4; ++j) {
        V noise;
        exponential(w[j], stratum[j], call.spec.strata.width, noise);
        a(Step{round, j}) = noise;
        if (winner(Step{round, j})) of_winner = noise;
      }
    });
    return static_cast<T>(crew.reduce(of_winner, Sum{}));
  }

  // --- loading and storing ----------------------------------------------------------------------------------------

  DISCRETE_OPS_DEVICE V parameter(Parameter p) const { return static_cast<T>(call.parameter(row, p)); }

  DISCRETE_OPS_DEVICE void load(int64_t at_row) {
    row = at_row;
    V most = -Math::kInf;
    each_loaded(call.logits, call.logits_width, -Math::kInf, [&](Step s, V x) {
      z(s) = x;
      most = Math::max(most, x < Math::kInf ? x : Math::kInf);
    });
    const V top = static_cast<T>(crew.reduce(most, Max{}));
    invalid = top == Math::kInf;  // +inf, or a NaN that was taken for it
    empty = top == -Math::kInf;
    if (invalid || empty) return;
    const V scale = static_cast<T>(call.grad_scale);
    const auto set = [&](Step s, V x) {
      const bool masked = z(s) == -Math::kInf;
      z(s) = masked ? -Math::kInf : Math::max(z(s) - top, Math::kLowest);
      if constexpr (kServes != Serves::kNone) v(s) = masked ? T(0) : x * scale;
    };
    if constexpr (kMode == Mode::kPullBack) {
      each_loaded(call.grad, call.grad_width, T(0), set);
    } else {
      each([&](Step s) { set(s, T(0)); });
    }
  }

  // f(step, x there). The loads of some rounds are on their way at once.
  template <class F>
  DISCRETE_OPS_DEVICE void each_loaded(const Operand& x, int width, V fill, const F& f) {
    constexpr int kLoads = sizeof(T) == 4 ? 4 : 1;
    const char* const from = row_of(x, row);
    for (int first = 0; quad(first) < end_quad; first += kLoads) {
      V loaded[4 * kLoads];
      load_quads<T, kLoads, int64_t>(x, from, width, quad(first), kLongThreads, {n, 0}, fill, loaded);
      DISCRETE_OPS_UNROLL
      for (int i = 0; i < 4 * kLoads; ++i) {
        if (const int round = first + i / 4; quad(round) < end_quad) f(Step{round, i % 4}, loaded[i]);
      }
    }
  }

  DISCRETE_OPS_DEVICE void set_winner(int64_t index) { winner_ = index > 0 && index < n ? index : 0; }

  DISCRETE_OPS_DEVICE void prepare_noise() { seed = call.seed_of(row, local_row); }

  DISCRETE_OPS_DEVICE V inverse_scale() const { return static_cast<T>(call.inverse_grad_scale); }

  // value(step) into the output, NaN or 0 where the row has no sample.
  template <class F>
  DISCRETE_OPS_DEVICE void store(const F& value) {
    char* const to = row_of_contiguous(call.out, row);
    for (int round = 0; quad(round) < end_quad; ++round) {
      T x[4];
      DISCRETE_OPS_UNROLL
      for (int i = 0; i < 4; ++i) {
        x[i] = invalid ? static_cast<T>(__builtin_nan("")) : empty ? T(0) : value(Step{round, i});
      }
      store_quads<T, 1, int64_t>(call.out, to, call.out_width, quad(round), 0, {n, 0}, x);
    }
  }
};

// Draw the winner of a row: its block by the blocks' sums, then the column inside it.
template <class Row>
DISCRETE_OPS_DEVICE void sample_long_row(Row& r) {
  using Step = typename Row::Step;
  using T = typename Row::T;
  const T rate = static_cast<T>(r.call.sample_rate(r.row));
  r.invalid = r.invalid || rate != rate;
  const auto weight_of = [&](Step s) { return Row::Math::exp(r.z(s) * rate); };
  double of_thread = 0;
  if (!r.invalid && !r.empty) {
    r.each([&](Step s) { of_thread += weight_of(s); });
  }
  const double of_block = r.crew.block.reduce(of_thread, Sum{});
  double total;
  double below = r.crew.sum_before(of_block, total);
  const double target = philox::uniform(r.seed, r.local_row) * total;
  // The first column whose CDF lies above the target; where rounding leaves none, the last of positive weight. As one
  // minimum: the columns, then from behind those that were not hit.
  const double n = static_cast<double>(r.n), none = 2 * n;
  double first = none;
  const bool here = below <= target;  // else an earlier block has it; every thread of the block agrees
  for (int round = 0; here && round < r.call.rounds && first >= n && !(r.invalid || r.empty); ++round) {
    double weight[4] = {};
    for (int i = 0; i < 4 && r.quad(round) < r.end_quad; ++i) weight[i] = weight_of(Step{round, i});
    const Team::Sums of_round = r.crew.block.sums((weight[0] + weight[1]) + (weight[2] + weight[3]));
    double cdf = below + of_round.before;
    below += of_round.total;
    for (int i = 0; i < 4; ++i) {
      cdf += weight[i];
      const double column = static_cast<double>(r.column(Step{round, i}));
      const double key = cdf > target ? column : 2 * n - 1 - column;
      if (weight[i] > 0 && key < first) first = key;
    }
    first = r.crew.block.reduce(first, Min{});
  }
  first = r.crew.reduce(first, Min{});
  const auto index = static_cast<int64_t>(first < n ? first : 2 * n - 1 - first);
  r.store([&](Step s) { return r.column(s) == index ? T(1) : T(0); });
  if (r.crew.rank == 0 && r.crew.block.rank == 0) r.call.index[r.row] = r.invalid || r.empty ? -1 : index;
}

}  // namespace cuda
}  // namespace discrete_ops
