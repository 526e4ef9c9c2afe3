// Our inlined polynomials against Sleef's 1-ulp functions as libtorch_cpu exports them, ns an element, AVX-512.
//
//   g++ -O3 -mavx512f bench/vector_math.cpp -o /tmp/vector_math -L discrete_ops -l:libdiscrete_ops_cpu.so
//       -L $TORCH/lib -ltorch_cpu -lc10 -Wl,-rpath,$PWD/discrete_ops:$TORCH/lib
#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <vector>

extern "C" void discrete_ops_math(char function, const float* x, float* y, int64_t n);
extern "C" __m512 Sleef_expf16_u10(__m512);
extern "C" __m512 Sleef_exp2f16_u10(__m512);
extern "C" __m512 Sleef_log1pf16_u10(__m512);

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

template <__m512 (*f)(__m512)>
void compare(const char* name, char ours, float low, float high) {
  std::vector<float> x(kElements), y(kElements);
  for (int64_t i = 0; i < kElements; ++i) x[i] = low + (high - low) * static_cast<float>(i) / kElements;
  const double mine = nanoseconds([&] { discrete_ops_math(ours, x.data(), y.data(), kElements); });
  const double sleef = nanoseconds([&] {
    for (int64_t i = 0; i < kElements; i += 16) _mm512_storeu_ps(&y[i], f(_mm512_loadu_ps(&x[i])));
  });
  std::printf("%-6s ours %.3f  Sleef %.3f  ratio %.1f\n", name, mine, sleef, sleef / mine);
}

int main() {
  compare<Sleef_expf16_u10>("exp", 'e', -20, 0);
  compare<Sleef_exp2f16_u10>("exp2", '2', -20, 0);
  compare<Sleef_log1pf16_u10>("log1p", 'l', -0.999f, 0);
}
