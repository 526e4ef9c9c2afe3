// One case of bench/sass.py: a kernel whose launch is known when it is compiled, so that its machine code is what a
// thread executes. COLUMNS, TEAM, QUADS, ESTIMATOR (or SAMPLE), ONE_DRAW are set on the command line.
#include "cuda/kernels.h"

namespace discrete_ops {
namespace cuda {

DISCRETE_OPS_DEVICE Operand dense(void* data) {
  Operand x{};
  x.data = data;
  x.dtype = Dtype::kFloat;
  x.column_stride = x.dims = 1;
  x.strides[0] = COLUMNS;
  return x;
}

DISCRETE_OPS_DEVICE Call known(const Call& call) {
  Call c = call;
  c.logits = dense(call.logits.data), c.grad = dense(call.grad.data), c.out = dense(call.out.data);
  c.columns = COLUMNS;
  c.team = TEAM;
  c.logits_width = c.grad_width = c.out_width = COLUMNS % 4 ? 2 : 4;
  c.draw_groups = c.split = 1;
  c.block_rows = 128 / TEAM;
  c.together = 1;
  c.seeds = c.groups = 1;
  c.first_row = 0;
  c.parameters = nullptr;
  c.one[kTau] = c.one_sample_rate = 1;
  c.spec.estimator = ESTIMATOR;
  c.spec.strata.count = 0;
  c.mode = Mode::kPullBack;
#ifdef ONE_DRAW
  c.spec.num_samples = 1;
#endif
  c.tile_bytes = COLUMNS % 4 ? 16 * (128 * COLUMNS / 4 + 1) : 0;
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
