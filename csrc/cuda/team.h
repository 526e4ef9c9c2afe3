// The threads that share a row, and their reductions. Every order is fixed: the same bits on every run.
#pragma once

#include "call.h"
#include "device.h"

namespace discrete_ops {
namespace cuda {

struct Sum {
  template <class X>
  DISCRETE_OPS_DEVICE X operator()(X a, X b) const {
    return a + b;
  }
};
struct Max {
  template <class X>
  DISCRETE_OPS_DEVICE X operator()(X a, X b) const {
    return a > b ? a : b;
  }
};
struct GreaterOrNaN {
  template <class X>
  DISCRETE_OPS_DEVICE X operator()(X a, X b) const {
    return device::greater_or_nan(a, b);
  }
};
struct Min {
  template <class X>
  DISCRETE_OPS_DEVICE X operator()(X a, X b) const {
    return a < b ? a : b;
  }
};

// Some lanes of one warp, or some warps of one block; a power of 2. A block holds several teams, one after the other.
struct Team {
  const int size, bits;    // threads, and their logarithm
  const int rank, number;  // this thread's place in the team, the team's in the block
  const int lane, lanes;   // the thread's place in its warp; the team's lanes there
  const unsigned mask;     // of those lanes
  const bool whole;        // all lanes of a warp always meet, in whichever team; masks cost more than shuffles
  int parity = 0;          // two sets of slots take turns, so that one barrier a reduction is enough

  DISCRETE_OPS_DEVICE Team(int size, bool whole)
      : size(size),
        bits(device::log2_of_power(size)),
        rank(device::thread() & (size - 1)),
        number(device::thread() >> bits),
        lane(device::thread() & 31),
        lanes(size < 32 ? size : 32),
        mask((lanes < 32 ? (1u << lanes) - 1 : ~0u) << (lane & ~(lanes - 1))),
        whole(whole || size >= 32) {}

  // A value for each warp of the block. Eight bytes each, whatever X is: teams do not wait for each other, and one may
  // be in a reduction of doubles while another is in one of floats.
  template <class X>
  struct Slots {
    char* at;
    DISCRETE_OPS_DEVICE X& operator[](int warp) const { return *reinterpret_cast<X*>(at + 8 * warp); }
  };
  template <class X>
  DISCRETE_OPS_DEVICE Slots<X> slots(int which) const {
    return {device::shared_memory() + (2 * parity + which) * kMaxWarps * 8};
  }
  DISCRETE_OPS_DEVICE int warps() const { return size >> 5; }
  DISCRETE_OPS_DEVICE int first_warp() const { return number * warps(); }

  template <class X, class Op>
  DISCRETE_OPS_DEVICE X reduce(X x, Op op) {
    X unused{};
    return reduce<false>(x, unused, op), x;
  }

  // Both at once, for one barrier.
  template <class X, class Op>
  DISCRETE_OPS_DEVICE void reduce2(X& x, X& y, Op op) {
    reduce<true>(x, y, op);
  }

  template <bool kTwo, class X, class Op>
  DISCRETE_OPS_DEVICE void reduce(X& x, X& y, Op op) {
    butterfly<kTwo>(lanes, x, y, op);
    if (size <= 32) return;
    const Slots<X> xs = slots<X>(0), ys = slots<X>(1);
    if (lane == 0) {
      xs[device::thread() / 32] = x;
      if constexpr (kTwo) ys[device::thread() / 32] = y;
    }
    meet();
    const int warp = first_warp() + (lane & (warps() - 1));
    x = xs[warp];
    if constexpr (kTwo) y = ys[warp];
    butterfly<kTwo>(warps(), x, y, op);
  }

  // x of the thread of that rank.
  template <class X>
  DISCRETE_OPS_DEVICE X broadcast(X x, int rank_of_x) {
    if (size == 1) return x;
    if (size <= 32) return shuffle(x, lane - rank + rank_of_x);
    const Slots<X> xs = slots<X>(0);
    if (rank == rank_of_x) xs[first_warp()] = x;
    meet();
    return xs[first_warp()];
  }

  // The sum of x over the threads of lesser rank, that with this thread's own, and over all. A thread's `through` is
  // the next one's `before`, to the bit. All lanes of the warp call this.
  struct Sums {
    double before, through, total;
  };
  DISCRETE_OPS_DEVICE Sums sums(double x) {
    const int place = lane & (lanes - 1);
    double inclusive = x, before = 0, total = x;
    if (lanes > 1) {
      scan<16>(place, inclusive);
      before = device::shuffle_up(~0u, inclusive, 1, lanes);
      total = device::shuffle(~0u, inclusive, lane - place + lanes - 1);
    }
    if (place == 0) before = 0;
    if (size <= 32) return {before, inclusive, total};
    const Slots<double> totals = slots<double>(0);
    if (lane == 0) totals[device::thread() / 32] = total;
    meet();
    double all = 0, before_warp = 0;
    for (int warp = first_warp(); warp < first_warp() + warps(); ++warp) {
      if (warp == device::thread() / 32) before_warp = all;
      all += totals[warp];
    }
    return {before_warp + before, before_warp + inclusive, all};
  }

 private:
  DISCRETE_OPS_DEVICE void meet() {
    device::barrier(1 + number, size);
    parity ^= 1;
  }

  template <class X>
  DISCRETE_OPS_DEVICE X shuffle(X x, int source) const {
    return whole ? device::shuffle(~0u, x, source) : device::shuffle(mask, x, source);
  }

  // x becomes its sum over the team's lanes up to this one.
  template <int kStep>
  DISCRETE_OPS_DEVICE void scan(int place, double& x) const {
    if constexpr (kStep > 1) scan<kStep / 2>(place, x);
    if (kStep < lanes) {
      const double below = device::shuffle_up(~0u, x, kStep, lanes);
      if (place >= kStep) x += below;
    }
  }

  template <bool kTwo, class X, class Op>
  DISCRETE_OPS_DEVICE void butterfly(int width, X& x, X& y, Op op) const {
    if (whole) {
      if (width > 1) fold<1, kTwo>(width, x, y, op);
    } else {
      DISCRETE_OPS_ROLLED
      for (int flip = width / 2; flip > 0; flip /= 2) exchange<kTwo>(mask, flip, x, y, op);
    }
  }

  // From the farthest lane to the nearest. Written out: a loop's own steps would cost more than the exchanges.
  template <int kFlip, bool kTwo, class X, class Op>
  static DISCRETE_OPS_DEVICE void fold(int width, X& x, X& y, Op op) {
    if constexpr (kFlip < 16) {
      if (width > 2 * kFlip) fold<2 * kFlip, kTwo>(width, x, y, op);
    }
    exchange<kTwo>(~0u, kFlip, x, y, op);
  }

  template <bool kTwo, class X, class Op>
  static DISCRETE_OPS_DEVICE void exchange(unsigned meeting, int flip, X& x, X& y, Op op) {
    x = op(x, device::shuffle_xor(meeting, x, flip));
    if constexpr (kTwo) y = op(y, device::shuffle_xor(meeting, y, flip));
  }
};

// The blocks that share a long row: one, or several of a cooperative launch.
struct Crew {
  const Call& call;
  Team block;
  const int rank;        // the block's place in the crew
  const int64_t number;  // the crew's place in the launch
  double* const partials;
  int parity = 0;

  explicit DISCRETE_OPS_DEVICE Crew(const Call& call)
      : call(call),
        block(kLongThreads, true),
        rank(static_cast<int>(device::block() % call.split)),
        number(device::block() / call.split),
        partials(call.partials + number * 4 * call.split) {}

  template <class Op>
  DISCRETE_OPS_DEVICE double reduce(double x, Op op) {
    x = block.reduce(x, op);
    if (call.split == 1) return x;
    double* const xs = share(x, x);
    x = device::read_shared(xs);
    DISCRETE_OPS_ROLLED
    for (int i = 1; i < call.split; ++i) x = op(x, device::read_shared(xs + i));
    return x;
  }

  DISCRETE_OPS_DEVICE void sum2(double& x, double& y) {
    block.reduce2(x, y, Sum{});
    if (call.split == 1) return;
    const double *const xs = share(x, y), *const ys = xs + call.split;
    x = y = 0;
    DISCRETE_OPS_ROLLED
    for (int i = 0; i < call.split; ++i) x += device::read_shared(xs + i), y += device::read_shared(ys + i);
  }

  // The sum of the blocks' x over the blocks of lesser rank; `total` becomes that over all. x is the same in a block.
  DISCRETE_OPS_DEVICE double sum_before(double x, double& total) {
    total = x;
    if (call.split == 1) return 0;
    const double* const xs = share(x, x);
    double before = total = 0;
    DISCRETE_OPS_ROLLED
    for (int i = 0; i < call.split; ++i) {
      if (i == rank) before = total;
      total += device::read_shared(xs + i);
    }
    return before;
  }

 private:
  // Show this block's values to the crew; the values of all.
  DISCRETE_OPS_DEVICE double* share(double x, double y) {
    double* const xs = partials + parity * 2 * call.split;
    if (block.rank == 0) xs[rank] = x, xs[call.split + rank] = y;
    device::grid_barrier(call.arrived + number, static_cast<unsigned>(call.split));
    parity ^= 1;
    return xs;
  }
};

}  // namespace cuda
}  // namespace discrete_ops
