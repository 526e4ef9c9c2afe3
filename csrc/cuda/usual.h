// The commonest calls: float32 rows, adjacent ones, with one seed and parameters that the host knows. Kernels of their
// own know so much when they are compiled; a Usual says what.
#pragma once

#include "call.h"

namespace discrete_ops {
namespace cuda {

namespace usual {

DISCRETE_OPS_HD Operand rows(const Operand& x, int64_t columns) {
  Operand rows{};
  rows.data = x.data;
  rows.dtype = Dtype::kFloat;
  rows.column_stride = rows.dims = 1;
  rows.strides[0] = columns;
  return rows;
}

DISCRETE_OPS_HD void know(Call& call, int64_t columns) {
  call.columns = columns;
  call.logits = rows(call.logits, columns), call.grad = rows(call.grad, columns), call.out = rows(call.out, columns);
  call.seeds = call.groups = 1;
  call.parameters = nullptr;
  call.spec.binary = false;
}

// Of a call that has a plan.
inline bool holds(const Call& call, bool with_grad) {
  const auto is_usual = [&](const Operand& x) { return x.dtype == Dtype::kFloat && x.is_contiguous(call.columns); };
  return is_usual(call.logits) && is_usual(call.out) && (!with_grad || is_usual(call.grad)) && call.seeds == 1 &&
         call.groups == 1 && !call.parameters && !call.spec.binary;
}

}  // namespace usual

// Rows of as many elements as their teams have places for, with kFloatQuads a thread; of kTeam threads, or 0: any.
template <int kTeam = 0>
struct WholeRows {
  template <int kQuads>
  static DISCRETE_OPS_HD Call known(Call call) {
    if constexpr (kTeam > 0) call.team = kTeam, call.block_rows = kBlockThreads / kTeam;
    usual::know(call, 4 * kQuads * call.team);
    call.logits_width = call.grad_width = call.out_width = 4;
    call.draw_groups = call.together = 1;
    call.tiles = Tiles::kNone;
    return call;
  }
  static bool holds(const Call& call, bool with_grad) {
    return usual::holds(call, with_grad) && call.columns == 4 * kFloatQuads * call.team && call.logits_width == 4 &&
           (!with_grad || call.grad_width == 4) && call.out_width == 4 && call.together && call.tiles == Tiles::kNone;
  }
};

// A thread a row, staged in tiles that begin at multiples of 16 bytes.
struct ShortRows {
  template <int kQuads>
  static DISCRETE_OPS_HD Call known(Call call) {
    usual::know(call, static_cast<int>(call.columns));
    call.team = call.together = 1;  // one thread has no others to meet
    call.tiles = Tiles::kAligned;
    return call;
  }
  static bool holds(const Call& call, bool with_grad) {
    return usual::holds(call, with_grad) && call.team == 1 && call.tiles == Tiles::kAligned;
  }
};

}  // namespace cuda
}  // namespace discrete_ops
