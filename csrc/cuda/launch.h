// Which kernel serves a call, and with how many threads. Host code without CUDA's headers: the figures of the device
// come in, a Launch goes out, the same one on every run.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "../cauchy.h"
#include "call.h"
#include "usual.h"

namespace discrete_ops {
namespace cuda {

using Kernel = void (*)(Call);

// One translation unit each (kernels_*.cu), so that they compile side by side.
// `quads` of columns are what a thread holds in registers; 0 where the row is too long for that.
Kernel sample_kernel(bool is_double, int quads);
Kernel kernel_without_draws(Mode mode, int quads);  // float32 inside, as the next
Kernel register_kernel_with_draws(Mode mode, int quads);
Kernel long_kernel_with_draws(Mode mode);
Kernel mve_kernel(int quads);  // likewise; it pulls back, and nothing else
Kernel double_kernel(Mode mode, int quads);
// Of the commonest calls (usual.h): of short rows, by their quads, or whole ones, by their team; the second pulls back.
Kernel usual_sample_kernel(bool is_short, int quads, int team);
Kernel usual_kernel(bool is_short, int quads, int team, bool draws);

// instance(value) with the value as a constant: one of those given, or else the last.
template <int kFirst, int... kOthers, class F>
Kernel with_one_of(int value, const F& instance) {
  if constexpr (sizeof...(kOthers) > 0) {
    if (value != kFirst) return with_one_of<kOthers...>(value, instance);
  }
  return instance(std::integral_constant<int, kFirst>());
}

// Of the quads that float32 rows take.
template <class F>
Kernel with_quads(int quads, const F& instance) {
  return with_one_of<1, 2, 3, kFloatQuads>(quads, instance);
}

// instance(mode) with the mode as a constant.
template <class F>
Kernel with_mode(Mode mode, const F& instance) {
  switch (mode) {
    case Mode::kSoft:
      return instance(std::integral_constant<Mode, Mode::kSoft>());
    case Mode::kTau:
      return instance(std::integral_constant<Mode, Mode::kTau>());
    default:
      return instance(std::integral_constant<Mode, Mode::kPullBack>());
  }
}

struct Device {
  int multiprocessors;
  int64_t l2_bytes;
  int64_t shared_bytes, block_shared_bytes;  // of a multiprocessor; the most of a block
  int (*most_threads)(Kernel);               // of a block, as their registers allow
  int (*resident_blocks)(Kernel);            // of kLongThreads threads, on a multiprocessor, likewise
};
constexpr int64_t kReservedBytes = 1024;  // of shared memory, by the system, a block

struct Launch {
  Kernel kernel;
  int64_t blocks;
  int threads;
  bool cooperative;
  int shared_bytes;  // a block
  // Bytes of the workspace, and where in it lie the crews' partial sums and their counters, which start at 0.
  int64_t workspace_bytes, partials_at, arrived_at, arrived_bytes;
};

inline int64_t ceiling(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}
inline int power_of_2_from(int64_t x) {
  int power = 1;
  while (power < x) power *= 2;
  return power;
}

// How many adjacent elements one access may take: up to 16 bytes, where every row begins at a multiple of them.
inline int access_width(const Operand& x, int64_t columns, bool binary) {
  if (binary) return 1;
  const int64_t element = bytes_of(x.dtype);
  for (int width = element == 8 ? 2 : 4; width > 1; width /= 2) {
    bool aligned = x.column_stride == 1 && columns % width == 0 &&
                   reinterpret_cast<uintptr_t>(x.data) % static_cast<uintptr_t>(element * width) == 0;
    for (int d = 0; d < x.dims; ++d) aligned = aligned && x.strides[d] % width == 0;
    if (aligned) return width;
  }
  return 1;
}

// Whether a block's rows are staged through shared memory: where its own accesses would be less than 16 bytes, or would
// lie so far apart that each takes half a sector of 32.
inline void plan_tiles(Call& call, Launch& launch, bool with_grad) {
  if (call.spec.binary) return;
  const bool adjacent = call.columns % 4 == 0 && (call.team > 1 || call.columns <= 4);
  if (adjacent || !call.logits.is_contiguous(call.columns)) return;
  if (with_grad && !call.grad.is_contiguous(call.columns)) return;
  const int element = std::max(bytes_of(call.logits.dtype), with_grad ? bytes_of(call.grad.dtype) : 0);
  static_assert(2 * (4 * kFloatQuads * kLongThreads * 4 + 32) + kSharedBytes < 99 << 10, "what any device has");
  call.tile_bytes = static_cast<int>(ceiling(call.block_rows * call.columns * element, 16) + 1) * 16;
  launch.shared_bytes += (with_grad ? 2 : 1) * call.tile_bytes;
  const auto is_aligned = [&](const Operand& x) {
    const int64_t block_bytes = call.block_rows * call.columns * bytes_of(x.dtype);
    return reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && block_bytes % 16 == 0;
  };
  const bool aligned = is_aligned(call.logits) && is_aligned(call.out) && (!with_grad || is_aligned(call.grad));
  call.tiles = aligned ? Tiles::kAligned : Tiles::kAnywhere;
}

// Threads a row and teams that share its draws; returns the quads a thread. A launch that fills the device takes few
// threads a row, which saves shuffles; a small one takes more draw groups, then more threads a row.
inline int plan_registers(Call& call, Launch& launch, int held_quads, bool draws, const Device& device) {
  const int64_t wanted = int64_t{device.multiprocessors} * (draws ? 640 : 1024);
  const int64_t quads = ceiling(call.columns, 4);
  const int most = std::min(power_of_2_from(quads), kRegisterThreads);
  call.team = power_of_2_from(ceiling(quads, held_quads));
  call.draw_groups = 1;
  const auto threads = [&] { return call.team * call.draw_groups; };
  const auto too_few = [&] { return call.rows * threads() < wanted && threads() < kRegisterThreads; };
  while (draws && too_few() && 2 * call.draw_groups <= call.spec.num_samples) call.draw_groups *= 2;
  while (too_few() && call.team < most) call.team *= 2;
  call.block_rows = std::max(1, kBlockThreads / threads());
  call.together = call.draw_groups == 1 && call.groups == 1 && call.spec.estimator != kMVE;
  launch.threads = threads() * call.block_rows;
  launch.blocks = ceiling(call.rows, call.block_rows);
  return static_cast<int>(ceiling(quads, call.team));
}

// Crews of blocks, each with a row whose arrays lie in shared memory as far as they fit. Those of the rows in flight
// that do not are to stay in the L2 cache.
inline void plan_long(Call& call, Launch& launch, int arrays, int64_t element, const Device& device) {
  const int64_t rounds = ceiling(call.columns, kRound), round_bytes = kRound * element;  // of one block; of an array
  int64_t resident = 0, crews = 0, outside_bytes = 0;  // of a block's arrays that are not in shared memory
  // With so many blocks on a multiprocessor, and so many a row.
  const auto divide = [&](int64_t blocks, int64_t split) {
    const int64_t most = std::min(device.block_shared_bytes, device.shared_bytes / blocks - kReservedBytes);
    const int64_t room = std::max<int64_t>(0, (most - kSharedBytes) / round_bytes);
    resident = blocks * device.multiprocessors;
    call.rounds = static_cast<int>(ceiling(rounds, split));
    call.split = static_cast<int>(ceiling(rounds, call.rounds));
    crews = std::min(call.rows, resident / call.split);
    call.shared_arrays = static_cast<int>(std::min<int64_t>(arrays, room / call.rounds));
    outside_bytes = (arrays - call.shared_arrays) * call.rounds * round_bytes;
  };
  // More than one only for multiprocessors that would have none: blocks of a row wait for each other.
  const int64_t least_split = std::min(std::max<int64_t>(1, device.multiprocessors / call.rows), rounds);
  // As many blocks as registers allow, since one works while another waits; fewer where that makes rows fit.
  const int64_t most_blocks = std::max(1, device.resident_blocks(launch.kernel));
  int64_t blocks = most_blocks;
  for (divide(blocks, least_split); outside_bytes && blocks > 1;) divide(--blocks, least_split);
  if (outside_bytes) divide(blocks = most_blocks, least_split);
  // More blocks for fewer rows in flight, until what is outside of shared memory stays in the cache.
  while (crews * call.split * outside_bytes > device.l2_bytes / 2 && call.rounds > 1) {
    const int64_t split = ceiling(rounds, call.rounds - 1);
    if (split > resident) break;
    divide(blocks, split);
  }
  launch.threads = kLongThreads;
  launch.blocks = crews * call.split;
  launch.cooperative = call.split > 1;
  launch.shared_bytes += static_cast<int>(call.shared_arrays * call.rounds * round_bytes);
  launch.partials_at = launch.blocks * outside_bytes;
  launch.arrived_at = launch.partials_at + (launch.cooperative ? crews * 4 * call.split * 8 : 0);
  launch.arrived_bytes = launch.cooperative ? crews * 4 : 0;
  launch.workspace_bytes = launch.arrived_at + launch.arrived_bytes;
}

inline Launch plan(Call& call, bool sampling, const Device& device) {
  const bool binary = call.spec.binary;  // a thread has a variable: adjacent threads, adjacent elements
  call.logits_width = access_width(call.logits, call.columns, binary);
  const bool with_grad = !sampling && call.mode == Mode::kPullBack;
  call.grad_width = with_grad ? access_width(call.grad, call.columns, binary) : 1;
  call.out_width = access_width(call.out, call.columns, binary);
  call.split = 1;
  call.tiles = Tiles::kNone;
  call.tile_bytes = call.shared_arrays = call.rounds = 0;
  const bool mve = !sampling && call.spec.estimator == kMVE;
  // The temperatures of MVE that float32 has not the precision for, or that only the device knows.
  const bool may_be_hot = mve && (call.parameters || call.one[kCoefficient] > kMostFloatTemperature);
  const bool is_double = call.logits.dtype == Dtype::kDouble || may_be_hot;
  const bool draws = !sampling && takes_draws(call.spec.estimator);
  const int held_quads = is_double ? kDoubleQuads : mve ? kMVEQuads : kFloatQuads;
  const int64_t held_columns = int64_t{4} * held_quads * kRegisterThreads;
  bool is_long = call.columns > held_columns;
  if (is_long && !is_double && call.columns <= 2 * held_columns) {  // twice the threads, where registers allow it
    is_long = draws && device.most_threads(register_kernel_with_draws(call.mode, held_quads)) < kLongThreads;
  }
  Launch launch{};
  launch.shared_bytes = kSharedBytes;
  const int quads = is_long ? 0 : plan_registers(call, launch, held_quads, draws, device);
  launch.kernel = sampling    ? sample_kernel(is_double, quads)
                  : is_double ? double_kernel(call.mode, quads)
                  : mve       ? mve_kernel(quads)
                  : !draws    ? kernel_without_draws(call.mode, quads)
                  : is_long   ? long_kernel_with_draws(call.mode)
                              : register_kernel_with_draws(call.mode, quads);
  if (is_long) {
    const bool all = is_double && !sampling && call.mode == Mode::kPullBack;
    const int arrays = sampling             ? kLongRowArraysOfSample
                       : all || mve         ? kLongRowArraysWithMVE
                       : is_double || draws ? kLongRowArraysWithDraws
                                            : kLongRowArrays;
    plan_long(call, launch, arrays, is_double ? 8 : 4, device);
  } else {
    plan_tiles(call, launch, with_grad);
    const bool is_short = ShortRows::holds(call, with_grad);
    if ((sampling || with_grad) && !mve && (is_short || WholeRows<>::holds(call, with_grad))) {
      const Kernel usual =
          sampling ? usual_sample_kernel(is_short, quads, call.team) : usual_kernel(is_short, quads, call.team, draws);
      if (launch.threads <= kRegisterThreads || device.most_threads(usual) >= launch.threads) launch.kernel = usual;
    }
  }
  return launch;
}

// Tell the call where its workspace lies.
inline void place(Call& call, const Launch& launch, void* workspace) {
  char* const bytes = static_cast<char*>(workspace);
  call.workspace = bytes;
  call.partials = reinterpret_cast<double*>(bytes + launch.partials_at);
  call.arrived = reinterpret_cast<unsigned*>(bytes + launch.arrived_at);
}

}  // namespace cuda
}  // namespace discrete_ops
