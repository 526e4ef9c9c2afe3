// Loads and stores of quads, the four adjacent columns that one Philox block serves, between tensors of any float dtype
// and T (float or double). A float64 tensor goes with T = double alone; others with double where float has not the
// precision.
#pragma once

#include "../bfloat16.h"
#include "call.h"
#include "device.h"

namespace discrete_ops {
namespace cuda {

template <class Raw, int kWidth>
struct alignas(sizeof(Raw) * kWidth) Pack {
  Raw x[kWidth];
};

// A row's columns. Of a thread's quads those from the `ends`-th on may lie behind the last one, in part or whole: where
// that is known when a kernel is compiled, the others need no test.
template <class Column>
struct Columns {
  Column count;
  int ends;
  DISCRETE_OPS_DEVICE bool have(Column column, int q) const { return q < ends || column < count; }
};

// Columns 4 * quad .. 4 * quad + 3 of a row that starts at `from`, the thread's q-th, those that exist; `fill` in place
// of the rest.
template <int kWidth, class Raw, class Column>
DISCRETE_OPS_DEVICE void load_quad(const Raw* from, int64_t stride, int q, Column quad, const Columns<Column>& columns,
                                   Raw fill, Raw to[4]) {
  DISCRETE_OPS_UNROLL
  for (int i = 0; i < 4; i += kWidth) {
    const Column column = 4 * quad + i;
    if constexpr (kWidth == 1) {
      to[i] = columns.have(column, q) ? from[column * stride] : fill;
    } else {
      Pack<Raw, kWidth> pack;
      DISCRETE_OPS_UNROLL
      for (int j = 0; j < kWidth; ++j) pack.x[j] = fill;
      if (columns.have(column, q)) pack = *reinterpret_cast<const Pack<Raw, kWidth>*>(from + column);
      DISCRETE_OPS_UNROLL
      for (int j = 0; j < kWidth; ++j) to[i + j] = pack.x[j];
    }
  }
}

template <int kWidth, class Raw, class Column>
DISCRETE_OPS_DEVICE void store_quad(Raw* to, int q, Column quad, const Columns<Column>& columns, const Raw from[4]) {
  DISCRETE_OPS_UNROLL
  for (int i = 0; i < 4; i += kWidth) {
    const Column column = 4 * quad + i;
    Pack<Raw, kWidth> pack;
    DISCRETE_OPS_UNROLL
    for (int j = 0; j < kWidth; ++j) pack.x[j] = from[i + j];
    if (columns.have(column, q)) *reinterpret_cast<Pack<Raw, kWidth>*>(to + column) = pack;
  }
}

// f(width) with the width as a constant.
template <int kMost, class F>
DISCRETE_OPS_DEVICE void with_width(int width, const F& f) {
  if constexpr (kMost == 4) {
    if (width == 4) return f(std::integral_constant<int, 4>());
  }
  if (width >= 2) return f(std::integral_constant<int, 2>());
  f(std::integral_constant<int, 1>());
}

// Where a row of x begins in device memory.
DISCRETE_OPS_DEVICE char* row_of(const Operand& x, int64_t row) {
  return static_cast<char*>(x.data) + x.offset(row) * bytes_of(x.dtype);
}

// The same of a contiguous x.
DISCRETE_OPS_DEVICE char* row_of_contiguous(const Operand& x, int64_t row) {
  return static_cast<char*>(x.data) + row * x.strides[0] * bytes_of(x.dtype);
}

// A thread's quads of a row of x that begins at `row`, `stride` apart from `first` on. Padding becomes `fill`. A Column
// counts columns: an int where the row has few.
template <class T, int kQuads, class Column>
DISCRETE_OPS_DEVICE void load_quads(const Operand& x, const void* row, int width, Column first, Column stride,
                                    const Columns<Column>& columns, T fill, T to[4 * kQuads]) {
  if constexpr (sizeof(T) == 8) {
    if (x.dtype != Dtype::kDouble) {
      float narrow[4 * kQuads];
      load_quads<float, kQuads>(x, row, width, first, stride, columns, static_cast<float>(fill), narrow);
      DISCRETE_OPS_UNROLL
      for (int i = 0; i < 4 * kQuads; ++i) to[i] = narrow[i];
      return;
    }
    with_width<2>(width, [&](auto w) {
      const double* const from = static_cast<const double*>(row);
      DISCRETE_OPS_UNROLL
      for (int q = 0; q < kQuads; ++q) {
        load_quad<decltype(w)::value>(from, x.column_stride, q, first + q * stride, columns, fill, to + 4 * q);
      }
    });
  } else if (x.dtype == Dtype::kFloat) {
    with_width<4>(width, [&](auto w) {
      const float* const from = static_cast<const float*>(row);
      DISCRETE_OPS_UNROLL
      for (int q = 0; q < kQuads; ++q) {
        load_quad<decltype(w)::value>(from, x.column_stride, q, first + q * stride, columns, fill, to + 4 * q);
      }
    });
  } else {
    const bool half = x.dtype == Dtype::kHalf;
    const uint16_t raw_fill = half ? device::float_to_half(fill) : to_bfloat16(fill);
    uint16_t raw[4 * kQuads];
    with_width<4>(width, [&](auto w) {
      const uint16_t* const from = static_cast<const uint16_t*>(row);
      DISCRETE_OPS_UNROLL
      for (int q = 0; q < kQuads; ++q) {
        load_quad<decltype(w)::value>(from, x.column_stride, q, first + q * stride, columns, raw_fill, raw + 4 * q);
      }
    });
    DISCRETE_OPS_UNROLL
    for (int i = 0; i < 4 * kQuads; ++i) to[i] = half ? device::half_to_float(raw[i]) : from_bfloat16(raw[i]);
  }
}

// The same back, into a contiguous tensor.
template <class T, int kQuads, class Column>
DISCRETE_OPS_DEVICE void store_quads(const Operand& x, void* row, int width, Column first, Column stride,
                                     const Columns<Column>& columns, const T from[4 * kQuads]) {
  if constexpr (sizeof(T) == 8) {
    if (x.dtype != Dtype::kDouble) {
      float narrow[4 * kQuads];
      DISCRETE_OPS_UNROLL
      for (int i = 0; i < 4 * kQuads; ++i) narrow[i] = static_cast<float>(from[i]);
      return store_quads<float, kQuads>(x, row, width, first, stride, columns, narrow);
    }
    with_width<2>(width, [&](auto w) {
      double* const to = static_cast<double*>(row);
      DISCRETE_OPS_UNROLL
      for (int q = 0; q < kQuads; ++q) store_quad<decltype(w)::value>(to, q, first + q * stride, columns, from + 4 * q);
    });
  } else if (x.dtype == Dtype::kFloat) {
    with_width<4>(width, [&](auto w) {
      float* const to = static_cast<float*>(row);
      DISCRETE_OPS_UNROLL
      for (int q = 0; q < kQuads; ++q) store_quad<decltype(w)::value>(to, q, first + q * stride, columns, from + 4 * q);
    });
  } else {
    uint16_t raw[4 * kQuads];
    const bool half = x.dtype == Dtype::kHalf;
    DISCRETE_OPS_UNROLL
    for (int i = 0; i < 4 * kQuads; ++i) raw[i] = half ? device::float_to_half(from[i]) : to_bfloat16(from[i]);
    with_width<4>(width, [&](auto w) {
      uint16_t* const to = static_cast<uint16_t*>(row);
      DISCRETE_OPS_UNROLL
      for (int q = 0; q < kQuads; ++q) store_quad<decltype(w)::value>(to, q, first + q * stride, columns, raw + 4 * q);
    });
  }
}

}  // namespace cuda
}  // namespace discrete_ops
