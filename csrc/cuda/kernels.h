// The kernels: rows in registers, and long rows over a crew of blocks.
#pragma once

#include "long_row.h"
#include "register_row.h"
#include "usual.h"

namespace discrete_ops {
namespace cuda {

template <class T, int kQuads>
DISCRETE_OPS_DEVICE void sample_row_in_registers(const Call& call) {
  RegisterRow<T, kQuads, Mode::kSoft, Serves::kNone> row(call);
  row.prepare_noise();
  sample_register_row(row);
}

template <class T, int kQuads, Mode kMode, Serves kServes>
DISCRETE_OPS_DEVICE void surrogate_row_in_registers(const Call& call) {
  using Row = RegisterRow<T, kQuads, kMode, kServes>;
  Row row(call);
  const int64_t index = call.index[row.row];
  row.load();
  row.set_winner(index);
  if constexpr (kServes != Serves::kWithoutDraws) row.prepare_noise();
  row.each([&](int s) {
    row.out(s) = 0;
    if constexpr (kMode != Mode::kPullBack) row.v(s) = 0;
  });
  const T tau = row.parameter(kTau);
  Surrogate<Row>{row, call.spec, tau, T(1) / tau, row.parameter(kCoefficient)}.run();
  if constexpr (kServes != Serves::kWithoutDraws) row.combine_draw_groups();
  if constexpr (kMode == Mode::kPullBack) row.restore_scale();
  row.replace_undefined();
  row.store();
}

template <class T, int kQuads>
DISCRETE_OPS_KERNEL(kLongThreads, 1)
sample_registers(DISCRETE_OPS_PARAMETER Call call) {
  sample_row_in_registers<T, kQuads>(call);
}

// Registers of a thread. Without draws so few that kLongThreads find theirs; with draws, whose arithmetic needs
// other threads to hide behind, the least that spill nothing, with which not every device runs so many.
template <class T>
constexpr int registers(Serves serves, int quads) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
  constexpr int of_two = 112, of_four = 144;
#else
  constexpr int of_two = 96, of_four = 128;
#endif
  if (sizeof(T) == 8) return 168;
  if (serves != Serves::kWithDraws) return 128;
  return quads > 3 ? of_four : quads > 2 ? 128 : quads > 1 ? of_two : 96;
}

template <class T, int kQuads, Mode kMode, Serves kServes>
DISCRETE_OPS_KERNEL_OF_REGISTERS(registers<T>(kServes, kQuads))
surrogate_registers(DISCRETE_OPS_PARAMETER Call call) {
  surrogate_row_in_registers<T, kQuads, kMode, kServes>(call);
}

// The same of the commonest calls. Without draws five blocks of kBlockThreads share a multiprocessor.
template <class Usual, int kQuads>
DISCRETE_OPS_KERNEL(kLongThreads, 1)
sample_usual(DISCRETE_OPS_PARAMETER Call call) {
  sample_row_in_registers<float, kQuads>(Usual::template known<kQuads>(call));
}

template <class Usual, int kQuads, Mode kMode, Serves kServes>
DISCRETE_OPS_KERNEL_OF_REGISTERS(kServes == Serves::kWithDraws ? registers<float>(kServes, kQuads) : 96)
surrogate_usual(DISCRETE_OPS_PARAMETER Call call) {
  surrogate_row_in_registers<float, kQuads, kMode, kServes>(Usual::template known<kQuads>(call));
}

// Of what waits for memory, and not for arithmetic, two blocks on a multiprocessor.
template <class T>
constexpr int long_blocks(Serves serves) {
  return sizeof(T) == 4 && (serves == Serves::kNone || serves == Serves::kWithoutDraws) ? 2 : 1;
}

template <class T>
DISCRETE_OPS_KERNEL(kLongThreads, long_blocks<T>(Serves::kNone))
sample_long(DISCRETE_OPS_PARAMETER Call call) {
  LongRow<T, Mode::kSoft, Serves::kNone> row(call);
  const int64_t crews = device::blocks() / call.split;
  for (int64_t at = row.crew.number; at < call.rows; at += crews) {
    row.load(at);
    row.prepare_noise();
    sample_long_row(row);
  }
}

template <class T, Mode kMode, Serves kServes>
DISCRETE_OPS_KERNEL(kLongThreads, long_blocks<T>(kServes))
surrogate_long(DISCRETE_OPS_PARAMETER Call call) {
  using Row = LongRow<T, kMode, kServes>;
  Row row(call);
  const int64_t crews = device::blocks() / call.split;
  for (int64_t at = row.crew.number; at < call.rows; at += crews) {
    row.load(at);
    if (!row.invalid && !row.empty) {
      row.set_winner(call.index[at]);
      row.prepare_noise();
      row.each([&](auto s) { row.out(s) = 0; });
      const T tau = row.parameter(kTau);
      Surrogate<Row>{row, call.spec, tau, T(1) / tau, row.parameter(kCoefficient)}.run();
    }
    row.store([&](auto s) { return kMode == Mode::kPullBack ? row.out(s) * row.inverse_scale() : row.out(s); });
  }
}

}  // namespace cuda
}  // namespace discrete_ops
