// Vectors' lanes in another order, rows that become columns, and loads and stores of a part of a vector.
// Included inside the namespace of an instruction set.

// x0 y0 x1 y1 ...: the lower and the upper half of both, interleaved.
static DISCRETE_OPS_HD void zip(Words x, Words y, Words& lower, Words& upper) {
#ifdef __clang__
  for (int lane = 0; lane < kFloatLanes; ++lane) {
    lower[lane] = lane & 1 ? y[lane / 2] : x[lane / 2];
    upper[lane] = lane & 1 ? y[(kFloatLanes + lane) / 2] : x[(kFloatLanes + lane) / 2];
  }
#else
  Words from;
  for (int lane = 0; lane < kFloatLanes; ++lane) from[lane] = lane & 1 ? kFloatLanes + lane / 2 : lane / 2;
  lower = __builtin_shuffle(x, y, from);
  upper = __builtin_shuffle(x, y, from + kFloatLanes / 2);
#endif
}

// Rows become columns, in place: log2(lanes) rounds of zips between the halves.
static DISCRETE_OPS_HD void transpose(Words x[kFloatLanes]) {
  for (int round = 1; round < kFloatLanes; round *= 2) {
    Words y[kFloatLanes];
    for (int i = 0; i < kFloatLanes / 2; ++i) zip(x[i], x[i + kFloatLanes / 2], y[2 * i], y[2 * i + 1]);
    for (int i = 0; i < kFloatLanes; ++i) x[i] = y[i];
  }
}

// Inside each quarter of 128 bits, which costs less than across them: of floats x0 y0 x1 y1, and x2 y2 x3 y3; of
// doubles x0 y0, and x1 y1.
template <class U>
static DISCRETE_OPS_HD void zip_quarters(U x, U y, U& lower, U& upper) {
  constexpr int kSize = sizeof(x[0]), kLanes = DISCRETE_OPS_BYTES / kSize, kQuarter = 16 / kSize;
#ifdef __clang__
  for (int lane = 0; lane < kLanes; ++lane) {
    const int from = lane / kQuarter * kQuarter + lane % kQuarter / 2;
    lower[lane] = lane & 1 ? y[from] : x[from];
    upper[lane] = lane & 1 ? y[from + kQuarter / 2] : x[from + kQuarter / 2];
  }
#else
  U from;
  for (int lane = 0; lane < kLanes; ++lane) {
    from[lane] = lane / kQuarter * kQuarter + lane % kQuarter / 2 + (lane & 1) * kLanes;
  }
  lower = __builtin_shuffle(x, y, from);
  upper = __builtin_shuffle(x, y, from + kQuarter / 2);
#endif
}

// Rows become columns inside each quarter, in place.
static DISCRETE_OPS_HD void transpose_quarters(Words x[4]) {
  Words even[2], odd[2];
  zip_quarters(x[0], x[2], even[0], even[1]);
  zip_quarters(x[1], x[3], odd[0], odd[1]);
  zip_quarters(even[0], odd[0], x[0], x[1]);
  zip_quarters(even[1], odd[1], x[2], x[3]);
}
static DISCRETE_OPS_HD void transpose_quarters(Wide x[2]) {
  const Wide even = x[0], odd = x[1];
  zip_quarters(even, odd, x[0], x[1]);
}

// As many neighbouring columns as a quarter has elements, of as many rows as there are lanes, `stride` apart: column[i]
// has element i of every row.
template <class T, class U = typename Math<T>::U>
static DISCRETE_OPS_HD void load_columns(const T* rows, int64_t stride, U* column) {
  constexpr int kQuarter = 16 / sizeof(T);
  for (int i = 0; i < kQuarter; ++i) {
    const T* const row = rows + i * stride;
#if DISCRETE_OPS_BYTES >= 32
    const auto quarter = [=](int number) {
      return _mm_loadu_ps(reinterpret_cast<const float*>(row + number * kQuarter * stride));
    };
#endif
#if DISCRETE_OPS_BYTES == 64
    __m512 x = _mm512_castps128_ps512(quarter(0));
    x = _mm512_mask_broadcast_f32x4(x, 0x00F0, quarter(1));
    x = _mm512_mask_broadcast_f32x4(x, 0x0F00, quarter(2));
    column[i] = (U)_mm512_mask_broadcast_f32x4(x, 0xF000, quarter(3));
#elif DISCRETE_OPS_BYTES == 32
    column[i] = (U)_mm256_insertf128_ps(_mm256_castps128_ps256(quarter(0)), quarter(1), 1);
#else
    __builtin_memcpy(&column[i], row, 16);
#endif
  }
  transpose_quarters(column);
}

template <class T, class U = typename Math<T>::U>
static DISCRETE_OPS_HD void store_columns(T* rows, int64_t stride, U* x) {
  constexpr int kQuarter = 16 / sizeof(T);
  transpose_quarters(x);
  for (int i = 0; i < kQuarter; ++i) {
    T* const row = rows + i * stride;
#if DISCRETE_OPS_BYTES >= 32
    const auto store = [=](int number, __m128 quarter) {
      _mm_storeu_ps(reinterpret_cast<float*>(row + number * kQuarter * stride), quarter);
    };
#endif
#if DISCRETE_OPS_BYTES == 64
    store(0, _mm512_castps512_ps128((__m512)x[i]));
    store(1, _mm512_extractf32x4_ps((__m512)x[i], 1));
    store(2, _mm512_extractf32x4_ps((__m512)x[i], 2));
    store(3, _mm512_extractf32x4_ps((__m512)x[i], 3));
#elif DISCRETE_OPS_BYTES == 32
    store(0, _mm256_castps256_ps128((__m256)x[i]));
    store(1, _mm256_extractf128_ps((__m256)x[i], 1));
#else
    __builtin_memcpy(row, &x[i], 16);
#endif
  }
}

// The first `count` elements, 0 to kFloatLanes; memory behind them is not touched.
static DISCRETE_OPS_HD Words load_partial(const float* from, int count) {
#if DISCRETE_OPS_BYTES == 64
  return (Words)_mm512_maskz_loadu_ps(static_cast<__mmask16>(0xFFFFu >> (16 - count)), from);
#elif DISCRETE_OPS_BYTES == 32
  const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  return (Words)_mm256_maskload_ps(from, mask);
#else
  Words x{};
  for (int lane = 0; lane < count; ++lane) __builtin_memcpy(reinterpret_cast<float*>(&x) + lane, from + lane, 4);
  return x;
#endif
}

static DISCRETE_OPS_HD void store_partial(float* to, Words x, int count) {
#if DISCRETE_OPS_BYTES == 64
  _mm512_mask_storeu_ps(to, static_cast<__mmask16>(0xFFFFu >> (16 - count)), (__m512)x);
#elif DISCRETE_OPS_BYTES == 32
  const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  _mm256_maskstore_ps(to, mask, (__m256)x);
#else
  for (int lane = 0; lane < count; ++lane) __builtin_memcpy(to + lane, reinterpret_cast<float*>(&x) + lane, 4);
#endif
}
