// What the operators (ops.cpp) hand to the row kernels, and the kernels of one instruction set.
// Plain data only: the kernels' translation units include no torch header.
#pragma once

#include <cstddef>
#include <type_traits>

#include "../call.h"

namespace discrete_ops {

// body(begin, end, context) over disjoint ranges of [begin, end).
using Body = void (*)(int64_t begin, int64_t end, void* context);
using ParallelFor = void (*)(int64_t begin, int64_t end, int64_t grain, Body body, void* context);

struct Call : Problem {
  double numbers[kParameters];  // `parameters` where one set of them is for all rows
  ParallelFor team;             // how a kernel may split one long row over threads; null: it may not
};

// Kernels of one instruction set. Units are what a thread takes: `lanes` short rows, one long row, or a block of ragged
// rows.
struct Kernels {
  const char* name;
  int64_t (*units)(const Call&);
  void (*sample)(const Call&, int64_t begin, int64_t end);
  void (*surrogate)(const Call&, int64_t begin, int64_t end);        // call.mode says what
  void (*math)(char function, const float* x, float* y, int64_t n);  // exp, exp2 ('2') or log1p ('l'), for tests
  void (*double_math)(char function, const double* x, double* y, int64_t n);
};

// Memory for a kernel, which frees it. Where there is none it throws, and is never null: what the kernel holds already,
// its destructors free.
struct OutOfMemory {
  size_t bytes;
};
void* allocate(size_t bytes);

constexpr int64_t kShortRow = 64;  // rows up to this length are vectorised across rows
constexpr int64_t kBlock = 256;    // neighbouring ragged rows, of which those of about a length are vectorised together

const Kernels* baseline_kernels();
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();

}  // namespace discrete_ops
