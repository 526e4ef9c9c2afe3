// What a launch hands to the CUDA kernels.
#pragma once

#include "../call.h"

namespace discrete_ops {
namespace cuda {

constexpr int kBlockThreads = 128;     // of a block, where a row does not take more
constexpr int kRegisterThreads = 256;  // most threads of a block that holds several rows, or draws, in registers
constexpr int kLongThreads = 512;      // threads of a block for a long row; the most for one in registers
constexpr int kFloatQuads = 4, kMVEQuads = 2, kDoubleQuads = 1;  // most quads of columns that a thread has in registers

// Arrays of a long row: z, of which it is sampled; v, out and a; draws need b too, MVE three more (cauchy_row.h).
constexpr int kLongRowArraysOfSample = 1, kLongRowArrays = 4, kLongRowArraysWithDraws = 5, kLongRowArraysWithMVE = 8;
constexpr int kRound = 4 * kLongThreads;  // elements of an array that a block's threads have in one round

// Shared memory of a block: the team's slots (team.h), one value a thread (register_row.h), two tiles (tile.h).
constexpr int kMaxWarps = 16;
constexpr int kSlotBytes = 2 * 2 * kMaxWarps * 8;
constexpr int kSharedBytes = kSlotBytes + kRegisterThreads * 8;

// Whether rows are staged through shared memory (tile.h), and whether every block's then begin, in every tensor, at a
// multiple of 16 bytes.
enum class Tiles { kNone, kAnywhere, kAligned };

struct Call : Problem {
  double one[kParameters];                  // the parameters of every row where `parameters` is null
  double one_sample_rate;                   // 1 / one[kSampleTau]: a division that every row would do again
  int logits_width, grad_width, out_width;  // elements of adjacent columns that one access may take: 1, 2 or 4
  int team;                                 // threads a row, a power of 2
  int block_rows, draw_groups;              // rows of a block; teams that share the draws of a row: powers of 2 too
  int together;                             // whether every row takes the same path, but for what it holds
  Tiles tiles;
  int tile_bytes;  // of shared memory that hold the block's rows of a tensor
  // Long rows:
  int split;          // blocks a row
  int rounds;         // quads of columns a thread, the last one perhaps behind the row; less than 2^28 columns a block
  int shared_arrays;  // of a block's arrays, so many are in shared memory, behind kSharedBytes
  void* workspace;    // every block's others
  double* partials;   // [rows in flight][2][2][split]
  unsigned* arrived;  // [rows in flight], 0 at first

  // `tensor` is on the device, `numbers` on the host; tensor is null where those count.
  void set_parameters(const double* tensor, const double* numbers) {
    parameters = tensor;
    for (int p = 0; p < kParameters; ++p) one[p] = checked_parameter(p, numbers[p]);
    one_sample_rate = 1 / one[kSampleTau];
  }

  DISCRETE_OPS_HD double parameter(int64_t row, Parameter p) const {
    if (!parameters) return one[p];
    const int64_t group = groups > 1 ? row / (rows / groups) : 0;  // a 64-bit division is a hundred instructions
    return checked_parameter(p, parameters[group * kParameters + p]);
  }

  DISCRETE_OPS_HD double sample_rate(int64_t row) const {
    return parameters ? 1 / parameter(row, kSampleTau) : one_sample_rate;
  }

  // The row's seed, and the row as its noise counts it.
  DISCRETE_OPS_HD uint64_t seed_of(int64_t row, uint64_t& local_row) const {
    local_row = static_cast<uint64_t>(first_row + row);
    if (seeds == 1) return static_cast<uint64_t>(*seed);
    const int64_t per_seed = rows / seeds, group = row / per_seed;
    local_row -= static_cast<uint64_t>(group * per_seed);
    return static_cast<uint64_t>(seed[group]);
  }
};

}  // namespace cuda
}  // namespace discrete_ops
