// What the operators (ops.cpp) hand to the row kernels, and the kernels of one instruction set.
// Plain data only: the kernels' translation units include no torch header.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../estimators.h"

namespace discrete_ops {

enum class Dtype { kDouble, kFloat, kHalf, kBFloat16 };

// A tensor as rows of `columns` elements, without a copy: any strides, in elements.
struct Operand {
  static constexpr int kMaxDims = 8;
  void* data;
  Dtype dtype;
  int64_t column_stride;
  int dims;  // leading dimensions, adjacent ones merged where their strides allow it
  int64_t sizes[kMaxDims], strides[kMaxDims];

  int64_t offset(int64_t row) const {
    int64_t offset = 0;
    for (int d = dims - 1; d > 0; --d) {
      offset += row % sizes[d] * strides[d];
      row /= sizes[d];
    }
    return dims ? offset + row * strides[0] : offset;
  }
};

// body(begin, end, context) over disjoint ranges of [begin, end).
using Body = void (*)(int64_t begin, int64_t end, void* context);
using ParallelFor = void (*)(int64_t begin, int64_t end, int64_t grain, Body body, void* context);

struct Call {
  Operand logits, grad;  // grad is used by surrogate_vjp only
  Operand out;           // contiguous: the sample, the soft sample or the gradient
  int64_t* index;        // (rows): written by sample, read by the others; -1 where a row has none
  const int64_t* seed;   // (seeds): consecutive equal groups of rows, each counting from 0
  const double* tau;     // (taus): likewise
  int64_t seeds, taus;
  int64_t rows, columns;
  Spec spec;
  bool soft;         // surrogate, not surrogate_vjp
  ParallelFor team;  // how a kernel may split one long row over threads; null: it may not
};

// Kernels of one instruction set. Units are what a thread takes: `lanes` short rows, or one long row.
struct Kernels {
  const char* name;
  int64_t (*units)(const Call&);
  void (*sample)(const Call&, int64_t begin, int64_t end);
  void (*surrogate)(const Call&, int64_t begin, int64_t end);        // soft sample or pull-back
  void (*math)(char function, const float* x, float* y, int64_t n);  // exp, exp2 ('2') or log1p ('l'), for tests
};

constexpr int64_t kShortRow = 64;  // rows up to this length are vectorised across rows

const Kernels* baseline_kernels();
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();

}  // namespace discrete_ops
