// The float32 kernels of what every processor has, without torch: eight threads at once call them for every estimator.
// Compiled under a sanitizer by sanitizers.py, with rows of few layouts since a compiler takes a minute or two for all:
// the whole library is tried below Python. Prints how many calls there were.
#include "../csrc/cpu/kernels.h"

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define DISCRETE_OPS_ISA baseline
#define DISCRETE_OPS_BYTES 16
#include "../csrc/cpu/kernels.inc"

#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

namespace discrete_ops {

void* allocate(size_t bytes) {
  return std::malloc(bytes);
}

namespace {

struct Layout {
  const char* name;
  int64_t rows, columns, draws;
};

constexpr Layout kLayouts[] = {{"short rows", 7, 10, 1}, {"long rows", 2, 301, 1}, {"draws", 6, 10, 3}};

// A call on memory of exactly its size, all of it on the heap.
struct Memory {
  std::vector<float> logits, grad, out;
  std::vector<int64_t> index, seed{7};
  Call call{};

  Memory(const Layout& layout, Estimator estimator)
      : logits(layout.rows * layout.columns),
        grad(logits.size() * layout.draws),
        out(grad.size()),
        index(layout.rows * layout.draws) {
    for (size_t i = 0; i < logits.size(); ++i) logits[i] = std::sin(static_cast<float>(i));
    for (size_t i = 0; i < grad.size(); ++i) grad[i] = std::cos(static_cast<float>(i));
    call.rows = layout.rows, call.columns = layout.columns, call.draws = layout.draws;
    call.logits = operand(logits), call.grad = operand(grad), call.out = operand(out);
    call.index = index.data(), call.seed = seed.data();
    call.numbers[kTau] = 0.7, call.numbers[kCoefficient] = 0.7, call.numbers[kSampleTau] = 1;
    call.parameters = call.numbers;
    call.seeds = call.groups = 1;
    call.spec = {estimator, 2, {}, false};
    call.mode = Mode::kPullBack;
    call.grad_scale = 0x1p-12, call.inverse_grad_scale = 0x1p12;
  }

  Operand operand(std::vector<float>& x) const {
    const auto rows = static_cast<int64_t>(x.size()) / call.columns;
    return {x.data(), Dtype::kFloat, 1, 1, {rows}, {call.columns}};
  }
};

// A sample and its pull-back.
void run(const Call& call) {
  using namespace baseline;
  const int64_t units = baseline::units(call);
  if (call.columns > kShortRow) {
    sample_long<float>(call, 0, units);
    surrogate_of<OneDraw<LaneColumns<float>>>(call, 0, units, 1);
  } else {
    sample_bundles<float, Rows::kEven>(call, 0, units);
    if (call.draws > 1) return surrogate_of_pooled<float>(call, 0, units);
    surrogate_of<OneDraw<LaneRows<float>>>(call, 0, units, Math<float>::kLanes);
  }
}

// The same call by every thread: what it reads is shared, as an operator's inputs are.
bool run_at_once(const Layout& layout, Estimator estimator, int threads) {
  Memory shared(layout, estimator);
  run(shared.call);
  std::atomic<int> equal{0};
  std::vector<std::thread> at_once;
  for (int i = 0; i < threads; ++i) {
    at_once.emplace_back([&] {
      std::vector<float> out(shared.out.size());
      std::vector<int64_t> index(shared.index.size());
      Call call = shared.call;
      call.out.data = out.data(), call.index = index.data(), call.parameters = call.numbers;
      run(call);
      equal += !std::memcmp(out.data(), shared.out.data(), out.size() * sizeof(float)) && index == shared.index;
    });
  }
  for (std::thread& thread : at_once) thread.join();
  return equal == threads;
}

// Ragged rows that are all empty: their tensors have no memory.
void write_no_elements() {
  int64_t offsets[3] = {}, index[2] = {-1, -1};
  Call call{};
  call.rows = 2, call.offsets = offsets, call.index = index;
  call.out = {nullptr, Dtype::kFloat, 1, 1, {0}, {1}};
  baseline::write_one_hot<float>(call, 0, call.rows);
}

}  // namespace
}  // namespace discrete_ops

int main() {
  using namespace discrete_ops;
  constexpr int kThreads = 8;
  write_no_elements();
  int calls = 1;
  for (const Layout& layout : kLayouts) {
    for (int64_t estimator = 0; estimator < kNumEstimators; ++estimator) {
      if (layout.draws > 1 && !pools(static_cast<Estimator>(estimator))) continue;
      if (!run_at_once(layout, static_cast<Estimator>(estimator), kThreads)) {
        std::printf("%s, estimator %d: threads differ\n", layout.name, static_cast<int>(estimator));
        return 1;
      }
      calls += kThreads + 1;
    }
  }
  std::printf("%d calls\n", calls);
}
