// One case of bench/sass.py: a kernel whose launch is known when it is compiled, so that its machine code is what a
// thread executes. COLUMNS, TEAM, QUADS, ESTIMATOR (or SAMPLE), ONE_DRAW are set on the command line.
#include "cuda/kernels.h"

namespace discrete_ops {
namespace cuda {

DISCRETE_OPS_DEVICE Call known(Call c) {
  usual::know(c, COLUMNS);
  c.team = TEAM;
  c.logits_width = c.grad_width = c.out_width = COLUMNS % 4 ? 2 : 4;
  c.draw_groups = c.split = 1;
  c.block_rows = 128 / TEAM;
  c.together = 1;
  c.first_row = 0;
  c.one[kTau] = c.one_sample_rate = 1;
  c.spec.estimator = ESTIMATOR;
  c.spec.strata.count = 0;
  c.mode = Mode::kPullBack;
#ifdef ONE_DRAW
  c.spec.num_samples = 1;
#endif
  c.tiles = COLUMNS % 4 ? Tiles::kAligned : Tiles::kNone;
  c.tile_bytes = 16 * (128 * COLUMNS / 4 + 1);
  return c;
}

extern "C" __global__ void __launch_bounds__(kRegisterThreads) probe(const __grid_constant__ Call call) {
  const Call c = known(call);
#ifdef SAMPLE
  sample_row_in_registers<float, QUADS>(c);
#else
  constexpr Serves kServes = takes_draws(ESTIMATOR) ? Serves::kWithDraws : Serves::kWithoutDraws;
  surrogate_row_in_registers<float, QUADS, Mode::kPullBack, kServes>(c);
#endif
}

}  // namespace cuda
}  // namespace discrete_ops
