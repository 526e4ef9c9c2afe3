// Loads and stores between tensors of any float dtype and rows of T (float or double).
// Included inside the namespace of an instruction set.

#if defined(__aarch64__)
using Half = __fp16;  // GCC 12 has no _Float16 for it
#else
using Half = _Float16;
#endif

// f(pointer, convert) with the dtype's element type and conversions.
template <class T, class F>
static DISCRETE_OPS_HD void read_as(const Operand& x, const F& f) {
  switch (x.dtype) {
    case Dtype::kDouble:
      return f(static_cast<const double*>(x.data), [](double y) { return static_cast<T>(y); });
    case Dtype::kFloat:
      return f(static_cast<const float*>(x.data), [](float y) { return static_cast<T>(y); });
    case Dtype::kHalf:
      return f(static_cast<const Half*>(x.data), [](Half y) { return static_cast<T>(static_cast<float>(y)); });
    case Dtype::kBFloat16:
      return f(static_cast<const uint16_t*>(x.data), [](uint16_t y) { return static_cast<T>(from_bfloat16(y)); });
  }
}

template <class T, class F>
static DISCRETE_OPS_HD void write_as(const Operand& x, const F& f) {
  switch (x.dtype) {
    case Dtype::kDouble:
      return f(static_cast<double*>(x.data), [](T y) { return static_cast<double>(y); });
    case Dtype::kFloat:
      return f(static_cast<float*>(x.data), [](T y) { return static_cast<float>(y); });
    case Dtype::kHalf:
      return f(static_cast<Half*>(x.data), [](T y) { return static_cast<Half>(static_cast<float>(y)); });
    case Dtype::kBFloat16:
      return f(static_cast<uint16_t*>(x.data), [](T y) { return to_bfloat16(static_cast<float>(y)); });
  }
}

// The hard rows [begin, end): zeros and a one at each index; NaN rows are marked kInvalid, masked ones -1.
constexpr int64_t kInvalid = -2;

template <class T>
static void write_variables(const Call& call, int64_t begin, int64_t end) {  // binary ones: 1 at index 0
  write_as<T>(call.out, [&](auto* out, auto convert) {
    const auto zero = convert(T(0)), one = convert(T(1)), nan = convert(static_cast<T>(__builtin_nan("")));
    for (int64_t row = begin; row < end; ++row) {
      const int64_t index = call.index[row];
      out[row] = index == 0 ? one : index == kInvalid ? nan : zero;
      call.index[row] = index < 0 ? -1 : index;
    }
  });
}

template <class T>
static void write_one_hot(const Call& call, int64_t begin, int64_t end) {
  write_as<T>(call.out, [&](auto* out, auto convert) {
    const int64_t n = call.columns;
    __builtin_memset(out + begin * n, 0, static_cast<size_t>((end - begin) * n) * sizeof(*out));
    for (int64_t row = begin; row < end; ++row) {
      int64_t& index = call.index[row];
      if (index >= 0) {
        out[row * n + index] = convert(T(1));
      } else if (index == kInvalid) {
        for (int64_t j = 0; j < n; ++j) out[row * n + j] = convert(static_cast<T>(__builtin_nan("")));
        index = -1;
      }
    }
  });
}
