// One SIMD vector of the instruction set this translation unit is compiled for, and its maths.
//
// Included inside the namespace of that instruction set, with DISCRETE_OPS_BYTES its vector size. GCC and Clang
// vector types do the arithmetic, with an intrinsic where the compiler would not find the instruction.
//
// exp, exp2 and log1p are our own polynomials: inlined they take 0.12, 0.08 and 0.16 ns an element where Sleef's,
// called in libtorch_cpu, take 0.20, 0.16 and 0.52 (bench/vector_math.cpp, one core with AVX-512), and no symbol of
// torch is needed that a release might stop exporting. In double they take 0.29, 0.25 and 0.51, Sleef's
// 0.48, 0.40 and 1.22, and the C library's, a number at a time, 2.6, 1.6 and 3.7. tests/test_cpp_library.py holds all
// to 2 ulp.

template <class T>
struct Math;

// Whether every lane of a comparison holds.
template <class Mask>
static DISCRETE_OPS_HD bool all_lanes(Mask mask) {
#if DISCRETE_OPS_BYTES == 64
  return _mm512_movepi8_mask((__m512i)mask) == ~0ull;
#elif DISCRETE_OPS_BYTES == 32
  return _mm256_movemask_epi8((__m256i)mask) == -1;
#else
  bool all = true;
  for (int lane = 0; lane < static_cast<int>(sizeof(Mask) / sizeof(mask[0])); ++lane) all = all && mask[lane];
  return all;
#endif
}

// The greatest lane that is a number; 0 if none is above it.
template <class T, class V>
static DISCRETE_OPS_HD T greatest_lane(V x) {
  T most = 0;
  for (int lane = 0; lane < static_cast<int>(sizeof(V) / sizeof(T)); ++lane) most = x[lane] > most ? x[lane] : most;
  return most;
}

// The sum of the lanes.
template <class T, class V>
static DISCRETE_OPS_HD T sum_of_lanes(V x) {
#if DISCRETE_OPS_BYTES == 64
  if constexpr (sizeof(T) == 4) return _mm512_reduce_add_ps((__m512)x);
  if constexpr (sizeof(T) == 8) return _mm512_reduce_add_pd((__m512d)x);
#elif DISCRETE_OPS_BYTES == 32
  if constexpr (sizeof(T) == 4) {
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
  } else {
    const __m128d sum = _mm_add_pd(_mm256_castpd256_pd128((__m256d)x), _mm256_extractf128_pd((__m256d)x, 1));
    return _mm_cvtsd_f64(_mm_add_sd(sum, _mm_unpackhi_pd(sum, sum)));
  }
#endif
  T sum = 0;
  for (int lane = 0; lane < static_cast<int>(sizeof(V) / sizeof(T)); ++lane) sum += x[lane];
  return sum;
}

constexpr int kFloatLanes = DISCRETE_OPS_BYTES / 4;

// What the maths of both types has in common: I holds a comparison's lanes, U their bits.
template <class Number, class Signed, class Unsigned>
struct Lanes {
  using T = Number;
  using Index = Signed;
  static constexpr int kLanes = DISCRETE_OPS_BYTES / sizeof(T);
  typedef T V __attribute__((vector_size(DISCRETE_OPS_BYTES)));
  typedef Signed I __attribute__((vector_size(DISCRETE_OPS_BYTES)));
  typedef Unsigned U __attribute__((vector_size(DISCRETE_OPS_BYTES)));

  static DISCRETE_OPS_HD V set(T x) { return V{} + x; }
  static DISCRETE_OPS_HD V divide(V a, V b) { return a / b; }
  static DISCRETE_OPS_HD V select(I mask, V a, V b) { return mask ? a : b; }
  static DISCRETE_OPS_HD bool all(I mask) { return all_lanes(mask); }
  static DISCRETE_OPS_HD bool any(I mask) { return !all_lanes(~mask); }
  static DISCRETE_OPS_HD T greatest(V x) { return greatest_lane<T>(x); }
  // a > b ? a : b and a < b ? a : b, which GCC does not turn into one instruction by itself.
  static DISCRETE_OPS_HD V max(V a, V b) {
#if DISCRETE_OPS_BYTES == 64
    if constexpr (sizeof(T) == 4)
      return (V)_mm512_max_ps((__m512)a, (__m512)b);
    else
      return (V)_mm512_max_pd((__m512d)a, (__m512d)b);
#elif DISCRETE_OPS_BYTES == 32
    if constexpr (sizeof(T) == 4)
      return (V)_mm256_max_ps((__m256)a, (__m256)b);
    else
      return (V)_mm256_max_pd((__m256d)a, (__m256d)b);
#else
    return a > b ? a : b;
#endif
  }
  static DISCRETE_OPS_HD V min(V a, V b) {
#if DISCRETE_OPS_BYTES == 64
    if constexpr (sizeof(T) == 4)
      return (V)_mm512_min_ps((__m512)a, (__m512)b);
    else
      return (V)_mm512_min_pd((__m512d)a, (__m512d)b);
#elif DISCRETE_OPS_BYTES == 32
    if constexpr (sizeof(T) == 4)
      return (V)_mm256_min_ps((__m256)a, (__m256)b);
    else
      return (V)_mm256_min_pd((__m256d)a, (__m256d)b);
#else
    return a < b ? a : b;
#endif
  }
};

template <>
struct Math<float> : Lanes<float, int32_t, uint32_t> {
  static constexpr Dtype kDtype = Dtype::kFloat;
  static constexpr float kNaN = __builtin_nanf(""), kTiny = 0x1p-124f, kBelowOne = 1 - 0x1p-24f;
  static constexpr float kInf = __builtin_inff(), kLowest = -0x1.fffffep127f;
  // exp(kConditionalLimit) times the largest partition (2^18) and ratio of exponentials (2^38) stays finite.
  static constexpr float kConditionalLimit = 48;

  // 2^x for x <= 127, 0 below the normal range.
  static DISCRETE_OPS_HD V exp2(V x) {
    const V bounded = max(x, set(-127)), shifted = bounded + 0x1.8p23f;  // rounds to the nearest integer
    return scale(bounded - (shifted - 0x1.8p23f), shifted);
  }

  // e^x for x <= 88, 0 below the normal range; ln 2 in two parts, so that large arguments lose nothing.
  static DISCRETE_OPS_HD V exp(V x) {
    const V bounded = max(x, set(-88)), shifted = bounded * 0x1.715476p0f + 0x1.8p23f, n = shifted - 0x1.8p23f;
    return scale(((bounded - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f) * 0x1.715476p0f, shifted);
  }

  // 2^(f + n) for |f| <= 1/2, n in the low bits of `shifted`; 0 for n < -126.
  static DISCRETE_OPS_HD V scale(V f, V shifted) {
    const V ff = f * f;  // Estrin's order: the chain of dependent operations is what costs
    const V q = (0x1.62e43p-1f + 0x1.ebfbdcp-3f * f) +
                ff * ((0x1.c6aee8p-5f + 0x1.3b2d4cp-7f * f) + ff * (0x1.5f3e54p-10f + 0x1.41fbbcp-13f * f));
    const V p = f * q + 1.0f;
    const I scaled = (I)p + ((I)shifted << 23);  // the low bits of shifted are n; the rest is shifted out
    return shifted < 0x1.8p23f - 126 ? V{} : (V)scaled;
  }

  // log(1 + x) for x > -1, finite; relative precision down to the smallest x.
  static DISCRETE_OPS_HD V log1p(V x) {
    const V w = x + 1.0f;
    const I exponent = ((I)w - 0x3f3504f3) >> 23, shift = exponent << 23;  // w in [sqrt(1/2), sqrt(2)) * 2^exponent
    const V t = exponent == 0 ? x : (V)((I)w - shift) - 1.0f;
    const V lost = exponent == 0 ? V{} : (x - (w - 1.0f)) * (V)((I)set(0.85f) - shift);  // rounding of w, over about w
    const V tt = t * t;
    const V p = ((0x1.555554p-2f - 0x1.000226p-2f * t) + tt * (0x1.99a008p-3f - 0x1.547244p-3f * t)) +
                (tt * tt) * ((0x1.22da1cp-3f - 0x1.0d8544p-3f * t) + tt * (0x1.055b72p-3f - 0x1.38b582p-4f * t));
    const V e = __builtin_convertvector(exponent, V);
    const V low = e * 0x1.7f7d1cp-20f + lost + (t * tt) * p - 0.5f * tt;
    return e * 0x1.62e4p-1f + (low + t);
  }
};

// The same in double, by other polynomials; NaN stays NaN in exp and exp2, too.
template <>
struct Math<double> : Lanes<double, int64_t, uint64_t> {
  static constexpr Dtype kDtype = Dtype::kDouble;
  static constexpr double kNaN = __builtin_nan(""), kTiny = 0x1p-1000, kBelowOne = 1 - 0x1p-53;
  static constexpr double kInf = __builtin_inf(), kLowest = -0x1.fffffffffffffp1023;
  static constexpr double kConditionalLimit = 600;

  // 2^x for x <= 1023, 0 below the normal range; beyond that any number, as in float.
  static DISCRETE_OPS_HD V exp2(V x) {
    const V bounded = max(set(-1024), x), shifted = bounded + 0x1.8p52;  // what is second in max may be a NaN
    return scale((bounded - (shifted - 0x1.8p52)) * 0x1.62e42fefa39efp-1, shifted);
  }

  // e^x for x <= 709, 0 below the normal range; beyond that any number.
  static DISCRETE_OPS_HD V exp(V x) {
    const V bounded = max(set(-710), x), shifted = bounded * 0x1.71547652b82fep0 + 0x1.8p52, n = shifted - 0x1.8p52;
    return scale((bounded - n * 0x1.62e42fefa3p-1) - n * 0x1.3de6af278ece6p-42, shifted);
  }

  // e^r 2^n for |r| <= log(2) / 2, n in the low bits of `shifted`; 0 for n < -1022.
  static DISCRETE_OPS_HD V scale(V r, V shifted) {
    const V rr = r * r, r4 = rr * rr;
    const V low =
        (0x1.000000000000ap-1 + 0x1.5555555555448p-3 * r) + rr * (0x1.555555555033fp-5 + 0x1.111111112652cp-7 * r);
    const V high =
        (0x1.6c16c1865d0a6p-10 + 0x1.a01a01e95125ep-13 * r) + rr * (0x1.a01991b60a335p-16 + 0x1.71dc3e18de21cp-19 * r);
    const V p = (r + rr * (low + r4 * (high + r4 * (0x1.28b6c80f1416fp-22 + 0x1.b3a83fae3ea8bp-26 * r)))) + 1.0;
    const V power = (V)(((I)shifted << 52) + (I)set(1));
    return shifted < 0x1.8p52 - 1022 ? V{} : p * power;
  }

  // log(1 + x) for x > -1, finite; relative precision down to the smallest x. By s = t / (2 + t), since
  // log(1 + t) = 2 atanh(s) = t - t^2 / 2 + s (t^2 / 2 + s^2 p(s^2)).
  static DISCRETE_OPS_HD V log1p(V x) {
    const V w = x + 1.0;
    // As bits 1 less sqrt(1/2): with w in [sqrt(1/2), sqrt(2)) * 2^e, e + 1023 are the upper bits.
    const U above = (U)w + 0x95f619980c433;
    const U shift = (above & ~0xfffffffffffffull) - (U)set(1);
    const V e = (V)((above >> 52) | (U)set(0x1p52)) - (0x1p52 + 1023);
    const V t = e == 0 ? x : (V)((U)w - shift) - 1.0;
    const V twice = (V)((U)set(2) - shift);  // 2 / 2^e, 0 for the largest; 1 / 2^e would be no number there
    // The rounding of w, over w = 2^e (1 + t): half of 1 / (1 + t) is about 0.53 - 0.5 t.
    const V lost = e == 0 ? V{} : (x - (w - 1.0)) * twice * (0.53 - 0.5 * t);
    const V half = t * t * 0.5, s = t / (t + 2.0), ss = s * s, s4 = ss * ss;
    const V p =
        ((0x1.5555555555592p-1 + 0x1.999999997ff63p-2 * ss) + s4 * (0x1.24924941db482p-2 + 0x1.c71c521a1a742p-3 * ss)) +
        (s4 * s4) * ((0x1.74663ba2ff7aep-3 + 0x1.39a20bae873efp-3 * ss) + s4 * 0x1.2f02510b671c5p-3);
    const V low = e * 0x1.3de6af278ece6p-42 + lost + (s * (half + ss * p) - half);
    return e * 0x1.62e42fefa3p-1 + (low + t);
  }
};

using Words = Math<float>::U;
using Wide = Math<double>::U;

// --- float64 sums of the forward pass -------------------------------------------------------------------------------

typedef double Doubles __attribute__((vector_size(DISCRETE_OPS_BYTES)));
typedef float HalfFloats __attribute__((vector_size(DISCRETE_OPS_BYTES / 2)));
typedef uint32_t HalfWords __attribute__((vector_size(DISCRETE_OPS_BYTES / 2)));

static DISCRETE_OPS_HD Doubles to_double(HalfFloats x) {
#if DISCRETE_OPS_BYTES == 64
  return (Doubles)_mm512_cvtps_pd((__m256)x);
#elif DISCRETE_OPS_BYTES == 32
  return (Doubles)_mm256_cvtps_pd((__m128)x);
#else
  return __builtin_convertvector(x, Doubles);
#endif
}
// The lower (0) or upper (1) half of a vector of floats or words.
template <class Half, class Whole>
static DISCRETE_OPS_HD Half half(Whole x, int part) {
#if DISCRETE_OPS_BYTES == 64
  return (Half)(part ? _mm512_extracti64x4_epi64((__m512i)x, 1) : _mm512_castsi512_si256((__m512i)x));
#elif DISCRETE_OPS_BYTES == 32
  return (Half)(part ? _mm256_extracti128_si256((__m256i)x, 1) : _mm256_castsi256_si128((__m256i)x));
#else
  Half y;
  __builtin_memcpy(&y, reinterpret_cast<const char*>(&x) + part * sizeof(y), sizeof(y));
  return y;
#endif
}

static DISCRETE_OPS_HD Doubles to_double(HalfWords x) {
#if DISCRETE_OPS_BYTES == 64
  return (Doubles)_mm512_cvtepu32_pd((__m256i)x);
#else
  return __builtin_convertvector(x, Doubles);
#endif
}

// How many vectors of M's numbers one vector of words makes: two of doubles, of its lower and its upper half.
template <class M>
constexpr int kPerWords = sizeof(typename M::T) / sizeof(uint32_t);
template <class M>
static DISCRETE_OPS_HD typename M::V numbers(Words x, int part) {
  if constexpr (kPerWords<M> == 1) {
    return __builtin_convertvector(x, typename M::V);
  } else {
    return to_double(half<HalfWords>(x, part));
  }
}

// In double; of floats, whose lanes are twice as many, the halves added up.
template <class V>
static DISCRETE_OPS_HD Doubles folded_to_double(V w) {
  if constexpr (sizeof(w[0]) == 8) {
    return w;
  } else {
    return to_double(half<HalfFloats>(w, 0)) + to_double(half<HalfFloats>(w, 1));
  }
}
static DISCRETE_OPS_HD double sum_of_doubles(Doubles x) {
  double sum = 0;
  for (int lane = 0; lane < DISCRETE_OPS_BYTES / 8; ++lane) sum += x[lane];
  return sum;
}

// --- Philox on vectors ----------------------------------------------------------------------------------------------
// Each 32-bit lane is one counter. The state lives as two vectors of 64-bit lanes (even and odd counters) whose upper
// halves are junk: the widening multiplication reads the lower halves only, so nothing is recombined between rounds.

static DISCRETE_OPS_HD Wide multiply_low(Wide a, uint32_t b) {
#if DISCRETE_OPS_BYTES == 64
  return (Wide)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(b));
#elif DISCRETE_OPS_BYTES == 32
  return (Wide)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(b));
#elif defined(__SSE2__)
  return (Wide)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x(b));
#elif defined(__aarch64__)
  return (Wide)vmull_u32(vmovn_u64((uint64x2_t)a), vdup_n_u32(b));
#else
  return (a & 0xFFFFFFFFull) * static_cast<uint64_t>(b);
#endif
}

// With AVX-512 one instruction, which may take c from memory.
static DISCRETE_OPS_HD Wide xor3(Wide a, Wide b, Wide c) {
#if DISCRETE_OPS_BYTES == 64
  return (Wide)_mm512_ternarylogic_epi64((__m512i)a, (__m512i)b, (__m512i)c, 0x96);
#else
  return a ^ b ^ c;
#endif
}

// The lower halves of a Wide's lanes, from even and odd counters.
static DISCRETE_OPS_HD Words merge(Wide even, Wide odd) {
#if DISCRETE_OPS_BYTES == 64
  return (Words)_mm512_mask_shuffle_epi32((__m512i)even, 0xAAAA, (__m512i)odd, _MM_PERM_CCAA);
#else
  return (Words)((even & 0xFFFFFFFFull) | (odd << 32));
#endif
}

struct PhiloxVector {
  Wide k0[philox::kRounds][2], k1[philox::kRounds][2];  // round keys of the even and odd lanes

  DISCRETE_OPS_HD void set_seeds(Words low, Words high) {
    for (int round = 0; round < philox::kRounds; ++round) {
      split(low, k0[round]);
      split(high, k1[round]);
      low += philox::kW0;
      high += philox::kW1;
    }
  }

  static DISCRETE_OPS_HD void split(Words x, Wide half[2]) { half[0] = (Wide)x, half[1] = (Wide)x >> 32; }

  // out[word][lane] for the counters c0..c3.
  DISCRETE_OPS_HD void operator()(Words c0, Words c1, Words c2, Words c3, Words out[4]) const {
    Wide c[4][2];
    split(c0, c[0]), split(c1, c[1]), split(c2, c[2]), split(c3, c[3]);
    const PhiloxVector* keys = this;
    asm("" : "+r"(keys));  // read where they are: a loop around this would have them copied to its stack first
    for (int round = 0; round < philox::kRounds; ++round) {
      for (int half = 0; half < 2; ++half) {
        const Wide p0 = multiply_low(c[0][half], philox::kM0), p1 = multiply_low(c[2][half], philox::kM1);
        c[0][half] = xor3(p1 >> 32, c[1][half], keys->k0[round][half]);
        c[2][half] = xor3(p0 >> 32, c[3][half], keys->k1[round][half]);
        c[1][half] = p1;
        c[3][half] = p0;
      }
    }
    for (int word = 0; word < 4; ++word) out[word] = merge(c[word][0], c[word][1]);
  }
};

// The upper words of the products with b.
static DISCRETE_OPS_HD Words upper(Words a, uint32_t b) {
  const Wide even = multiply_low((Wide)a, b) >> 32, odd = multiply_low((Wide)a >> 32, b) & ~0xFFFFFFFFull;
  return (Words)(even | odd);
}

// Standard exponential noise from the words; the definition is discrete_ops/philox.py's `exponential`.
// Scaled by a power of 2, which rounds nothing, before the half is added: one instruction where there is an fma.
template <class M>
static DISCRETE_OPS_HD typename M::V minus_uniform(typename M::V word) {
  using T = typename M::T;
  return word * T(-0x1p-32) - T(0x1p-33);
}
template <class M>
static DISCRETE_OPS_HD typename M::V exponential_of(typename M::V minus_u) {
  return -M::log1p(M::max(minus_u, M::set(-M::kBelowOne)));
}
template <class M>
static DISCRETE_OPS_HD typename M::V exponential(typename M::V word) {
  return exponential_of<M>(minus_uniform<M>(word));
}
template <class M>
static DISCRETE_OPS_HD typename M::V exponential(typename M::V word, typename M::V stratum, double width) {
  return exponential_of<M>((minus_uniform<M>(word) - stratum) * static_cast<typename M::T>(width));
}
