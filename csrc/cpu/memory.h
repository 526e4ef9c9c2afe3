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

#if DISCRETE_OPS_BYTES >= 32
// Eight float16 numbers, of which compilers make no vectors by themselves.
static DISCRETE_OPS_HD void widen8(const Half* from, float* to) {
  _mm256_storeu_ps(to, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}
static DISCRETE_OPS_HD void narrow8(const float* from, float scale, Half* to) {
  const __m256 x = _mm256_mul_ps(_mm256_loadu_ps(from), _mm256_set1_ps(scale));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
#endif

// to[j] = from[j * stride], with `convert` of read_as.
template <class T, class X, class Convert>
static DISCRETE_OPS_HD void read_row(const X* from, int64_t stride, int64_t count, T* to, const Convert& convert) {
  int64_t j = 0;
  if (stride != 1) {
    for (; j < count; ++j) to[j] = convert(from[j * stride]);
    return;
  }
#if DISCRETE_OPS_BYTES >= 32
  if constexpr (std::is_same_v<X, Half> && sizeof(T) == 4) {
    for (; j + 8 <= count; j += 8) widen8(from + j, to + j);
  }
#endif
  for (; j < count; ++j) to[j] = convert(from[j]);
}

// to[j] = from[j] * scale, with `convert` of write_as.
template <class T, class X, class Convert>
static DISCRETE_OPS_HD void write_row(const T* from, T scale, int64_t count, X* to, const Convert& convert) {
  int64_t j = 0;
#if DISCRETE_OPS_BYTES >= 32
  if constexpr (std::is_same_v<X, Half> && sizeof(T) == 4) {
    for (; j + 8 <= count; j += 8) narrow8(from + j, scale, to + j);
  }
#endif
  for (; j < count; ++j) to[j] = convert(from[j] * scale);
}

// Memory that grows when it is first needed.
template <class X>
struct Scratch {
  void* memory = nullptr;
  X* data = nullptr;
  int64_t size = 0;

  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { __builtin_free(memory); }

  X* of(int64_t wanted) {
    if (wanted > size) {
      __builtin_free(memory);
      memory = nullptr, size = 0;  // if there is none to be had
      memory = allocate(static_cast<size_t>(wanted) * sizeof(X) + 64);
      data = reinterpret_cast<X*>((reinterpret_cast<uintptr_t>(memory) + 63) & ~uintptr_t{63});
      size = wanted;
    }
    return data;
  }
};

// --- cauchy.h on vectors --------------------------------------------------------------------------------------------

// The terms' functions at one step. One division serves three of them.
template <class M>
static DISCRETE_OPS_HD void cauchy_functions(const CauchyTerms<M>& terms, typename M::V p, typename M::V* u) {
  using V = typename M::V;
  const V a = terms.t * p + typename M::T(0.5);
  V base = M::set(1);
  for (int k = 0; k < terms.count; k += 3) {
    const V *c = terms.shift + k, d0 = a + c[0], d1 = a + c[1], d2 = a + c[2], d12 = d1 * d2;
    const V inverse = M::divide(base, d0 * d12), n0 = a - c[0], n01 = n0 * (a - c[1]);
    u[k] = d12 * inverse;
    u[k + 1] = n0 * d2 * inverse;
    u[k + 2] = n01 * inverse;
    base = n01 * (a - c[2]) * inverse;
  }
}

// Sums of x times three of them, over steps.
template <class V>
static DISCRETE_OPS_HD void add_moments(const V* u, int count, const V* x, int64_t begin, int64_t end, V* sums) {
  V sum0{}, sum1{}, sum2{};
  u += begin * count;
  for (int64_t s = begin; s < end; ++s, u += count) {
    sum0 += u[0] * x[s];
    sum1 += u[1] * x[s];
    sum2 += u[2] * x[s];
  }
  sums[0] = sum0, sums[1] = sum1, sums[2] = sum2;
}

template <class V>
static DISCRETE_OPS_HD V cauchy_sum(int count, const V* u, const V* h) {
  V sum{};
  for (int k = 0; k < count; k += 3) sum += u[k] * h[k] + u[k + 1] * h[k + 1] + u[k + 2] * h[k + 2];
  return sum;
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
    const int64_t* const offsets = call.offsets;
    const auto start_of = [=](int64_t row) { return offsets ? offsets[row] : row * n; };
    const int64_t first = start_of(begin), count = start_of(end) - first;
    if (count) __builtin_memset(out + first, 0, static_cast<size_t>(count) * sizeof(*out));  // else there is no memory
    for (int64_t row = begin; row < end; ++row) {
      int64_t& index = call.index[row];
      if (index >= 0) {
        out[start_of(row) + index] = convert(T(1));
      } else if (index == kInvalid) {
        for (int64_t j = start_of(row); j < start_of(row + 1); ++j) out[j] = convert(static_cast<T>(__builtin_nan("")));
        index = -1;
      }
    }
  });
}
