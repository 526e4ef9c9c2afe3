// What a launch hands to the CUDA kernels.
#pragma once

#include "../call.h"

namespace discrete_ops {
namespace cuda {

constexpr int kRegisterThreads = 256;  // most threads of a block of the kernels that hold rows in registers
constexpr int kLongThreads = 512;      // threads of a block of the kernels for long rows

// Arrays of a long row's workspace: z, v, out and a; draws need b too.
constexpr int kLongRowArrays = 4, kLongRowArraysWithDraws = 5;

// Shared memory of a block: the team's slots (team.h), one value a thread (register_row.h), two tiles (tile.h).
constexpr int kMaxWarps = 16;
constexpr int kSlotBytes = 2 * 2 * kMaxWarps * 8;
constexpr int kSharedBytes = kSlotBytes + kRegisterThreads * 8;

struct Call : Problem {
  double one_tau;                           // the temperature where `tau` is null
  int logits_width, grad_width, out_width;  // elements of adjacent columns that one access may take: 1, 2 or 4
  int team;                                 // threads a row, a power of 2
  int block_rows, draw_groups;              // rows of a block; teams that share the draws of a row: powers of 2 too
  int tile_bytes;                           // of shared memory that hold the block's rows of a tensor; 0: not staged
  // Long rows:
  int split;          // blocks a row
  int rounds;         // quads of columns a thread, the last one perhaps behind the row
  void* workspace;    // scratch of every block
  double* partials;   // [rows in flight][2][2][split]
  unsigned* arrived;  // [rows in flight], 0 at first

  DISCRETE_OPS_HD double tau_of(int64_t row) const {
    return tau ? checked_tau(tau[taus > 1 ? row / (rows / taus) : 0]) : one_tau;
  }

  // The row's seed, and the row as its noise counts it.
  DISCRETE_OPS_HD uint64_t seed_of(int64_t row, uint64_t& local_row) const {
    local_row = static_cast<uint64_t>(row);
    if (seeds == 1) return static_cast<uint64_t>(*seed);  // without a 64-bit division, which is a hundred instructions
    const int64_t per_seed = rows / seeds, group = row / per_seed;
    local_row = static_cast<uint64_t>(row - group * per_seed);
    return static_cast<uint64_t>(seed[group]);
  }
};

}  // namespace cuda
}  // namespace discrete_ops
