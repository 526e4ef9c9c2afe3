// What the operators (operators.h) hand to the row kernels of a device. Plain data: kernels include no torch header.
#pragma once

#include <cstdint>

#include "estimators.h"
#include "philox.h"

namespace discrete_ops {

enum class Dtype { kDouble, kFloat, kHalf, kBFloat16 };

DISCRETE_OPS_HD constexpr int bytes_of(Dtype dtype) {
  return dtype == Dtype::kDouble ? 8 : dtype == Dtype::kFloat ? 4 : 2;
}

// A tensor as rows of `columns` elements, without a copy: any strides, in elements.
struct Operand {
  static constexpr int kMaxDims = 8;
  void* data;
  Dtype dtype;
  int64_t column_stride;
  int dims;  // leading dimensions, adjacent ones merged where their strides allow it
  int64_t sizes[kMaxDims], strides[kMaxDims];

  DISCRETE_OPS_HD int64_t offset(int64_t row) const {
    int64_t offset = 0;
    for (int d = dims - 1; d > 0; --d) {
      offset += row % sizes[d] * strides[d];
      row /= sizes[d];
    }
    return offset + row * strides[0];  // 0 of a single row
  }

  bool is_contiguous(int64_t columns) const {
    return column_stride == 1 && (dims == 0 || (dims == 1 && strides[0] == columns));
  }
};

// What the surrogate kernels compute of an estimator's terms.
enum class Mode {
  kPullBack,  // of the gradient: weight * J(p; v)
  kSoft,      // the soft sample: tau * weight * p
  kTau        // the soft sample's derivative in tau: weight * J(p; -log p)
};

// The columns of `parameters`.
enum Parameter { kTau, kCoefficient, kSampleTau, kParameters };

struct Problem {
  Operand logits, grad;      // grad is used by surrogate_vjp only
  Operand out;               // contiguous: the sample, the soft sample or the gradient
  int64_t* index;            // (rows): written by sample, read by the others; -1 where a row has none
  const int64_t* seed;       // (seeds): consecutive equal groups of rows, each counting from first_row
  const double* parameters;  // (groups, kParameters): likewise, groups of rows that share theirs
  int64_t seeds, groups;
  int64_t first_row;  // the number, for the noise, of the first row: these may be a part of more
  int64_t rows, columns;
  // Draws of each row: draw d of row i has row d * rows + i of index, of a sample and of a gradient that is pulled
  // back, and the noise of that number; where seeds have groups of rows, d counts inside a group.
  int64_t draws;
  // (rows + 1), of ragged rows, one after the other: where each begins, and the last one ends; columns are the longest
  // row's. Null: all rows are as long. CPU kernels alone have them.
  const int64_t* offsets;
  Spec spec;
  Mode mode;  // of surrogate
  // Powers of 2: what a gradient is multiplied by while it is pulled back, and after.
  double grad_scale, inverse_grad_scale;

  // Where a row begins in `out`.
  DISCRETE_OPS_HD int64_t start_of(int64_t row) const { return offsets ? offsets[row] : row * columns; }
  DISCRETE_OPS_HD int64_t columns_of(int64_t row) const { return offsets ? offsets[row + 1] - offsets[row] : columns; }
  // Where a row begins in what came in.
  DISCRETE_OPS_HD int64_t start_of(int64_t row, const Operand& x) const {
    return offsets ? offsets[row] * x.column_stride : x.offset(row);
  }
};

// A temperature that the kernels can use, else NaN, so that a bad one shows: float32 holds the inverse of every good
// one.
DISCRETE_OPS_HD double checked_tau(double tau) {
  return tau >= 0x1p-126 && tau <= 0x1p126 ? tau : __builtin_nan("");
}

// Of a parameter's column p: the coefficient may be any number.
DISCRETE_OPS_HD double checked_parameter(int64_t p, double value) {
  return p == kCoefficient ? value : checked_tau(value);
}

}  // namespace discrete_ops
