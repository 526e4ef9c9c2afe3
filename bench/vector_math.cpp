// Our inlined polynomials against Sleef's 1-ulp functions as libtorch_cpu exports them, ns an element, AVX-512.
//
//   g++ -O3 -std=c++17 -mavx512f bench/vector_math.cpp -o /tmp/vector_math -L discrete_ops -l:libdiscrete_ops_cpu.so
//       -L $TORCH/lib -ltorch_cpu -lc10 -Wl,-rpath,$PWD/discrete_ops:$TORCH/lib
#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <vector>

extern "C" {
void discrete_ops_math(char function, const float* x, float* y, int64_t n);
void discrete_ops_double_math(char function, const double* x, double* y, int64_t n);
__m512 Sleef_expf16_u10(__m512);
__m512 Sleef_exp2f16_u10(__m512);
__m512 Sleef_log1pf16_u10(__m512);
__m512d Sleef_expd8_u10(__m512d);
__m512d Sleef_exp2d8_u10(__m512d);
__m512d Sleef_log1pd8_u10(__m512d);
}

constexpr int64_t kElements = 4096;

template <class F>
double nanoseconds(const F& run) {
  std::vector<double> times;
  for (int repeat = 0; repeat < 301; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < 20; ++i) run();
    times.push_back(std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count());
  }
  std::nth_element(times.begin(), times.begin() + 150, times.end());
  return times[150] / (20 * kElements);
}

template <auto f, auto math, class T>
void compare(const char* name, char ours, T low, T high) {
  typedef T V __attribute__((vector_size(64)));
  std::vector<T> x(kElements), y(kElements);
  for (int64_t i = 0; i < kElements; ++i) x[i] = low + (high - low) * static_cast<T>(i) / kElements;
  const double mine = nanoseconds([&] { math(ours, x.data(), y.data(), kElements); });
  const double sleef = nanoseconds([&] {
    for (int64_t i = 0; i < kElements; i += 64 / sizeof(T)) {
      V v;
      __builtin_memcpy(&v, &x[i], sizeof(v));
      v = f(v);
      __builtin_memcpy(&y[i], &v, sizeof(v));
    }
  });
  std::printf("%-12s ours %.3f  Sleef %.3f  ratio %.1f\n", name, mine, sleef, sleef / mine);
}

int main() {
  compare<Sleef_expf16_u10, discrete_ops_math>("exp", 'e', -20.f, 0.f);
  compare<Sleef_exp2f16_u10, discrete_ops_math>("exp2", '2', -20.f, 0.f);
  compare<Sleef_log1pf16_u10, discrete_ops_math>("log1p", 'l', -0.999f, 0.f);
  compare<Sleef_expd8_u10, discrete_ops_double_math>("exp, double", 'e', -20., 0.);
  compare<Sleef_exp2d8_u10, discrete_ops_double_math>("exp2, double", '2', -20., 0.);
  compare<Sleef_log1pd8_u10, discrete_ops_double_math>("log1p, double", 'l', -0.999, 0.);
}
