// The operators on CPU: tensors in, row kernels over threads, tensors out.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <string>
#include <vector>

#include "../operators.h"
#include "../schemas.h"
#include "huge_pages.h"
#include "kernels.h"
#include "parallel_for.h"

namespace discrete_ops {

void* allocate(size_t bytes) {
  void* const memory = std::malloc(bytes);
  if (!memory) throw OutOfMemory{bytes};
  return memory;
}

namespace {

// The best instruction set of this processor, or a lesser one that DISCRETE_OPS_CPU names (for tests).
const Kernels& kernels() {
  static const Kernels* const chosen = [] {
    std::vector<const Kernels*> supported;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")) {
      supported.push_back(avx512_kernels());
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
      supported.push_back(avx2_kernels());
    }
#endif
    supported.push_back(baseline_kernels());
    const char* const wish = std::getenv("DISCRETE_OPS_CPU");
    for (const Kernels* k : supported) {
      if (wish && std::string(wish) == k->name) return k;
    }
    return supported.front();
  }();
  return *chosen;
}

void team(int64_t begin, int64_t end, int64_t grain, Body body, void* context) {
  parallel_for(begin, end, grain, [=](int64_t first, int64_t last) { body(first, last, context); });
}

const pid_t kLoadedBy = getpid();

// GCC's OpenMP would wait in a forked child, for ever, for the threads that its parent had.
bool is_forked() {
  return getpid() != kLoadedBy;
}

using Kernel = void (*)(const Call&, int64_t, int64_t);

// `cost` is the work per element in units of one exponential.
void launch(Kernel kernel, Call& call, double cost) {
  constexpr double kGrain = 16384;  // exponentials that are worth a thread
  const int64_t units = kernels().units(call);
  const int64_t elements = call.offsets ? call.offsets[call.rows] : call.rows * call.draws * call.columns;
  const double work = static_cast<double>(elements) * cost;
  const auto threads = static_cast<int64_t>(torch::stable::get_num_threads());
  std::atomic<size_t> lacking{0};  // bytes: thrown behind the loop, since some of torch's keep no message
  const auto run = [&](int64_t begin, int64_t end) {
    try {
      kernel(call, begin, end);
    } catch (const OutOfMemory& wanted) {
      lacking = wanted.bytes;
    }
  };
  if (threads == 1 || work < 2 * kGrain || is_forked()) {
    run(0, units);
  } else if (units < threads && call.columns > kShortRow) {
    call.team = team;
    run(0, units);
  } else {
    const auto grain = static_cast<int64_t>(kGrain * static_cast<double>(units) / work);
    parallel_for(0, units, grain < 1 ? 1 : grain, run);
  }
  STD_TORCH_CHECK(!lacking, "logits: got rows of ", call.columns, " categories, for which a thread's workspace takes ",
                  lacking.load(), " bytes: out of memory");
}

struct Cpu {
  using Call = discrete_ops::Call;

  static int32_t type() { return aoti_torch_device_type_cpu(); }

  static std::optional<Tensor> set_parameters(Call& call, const double* tensor, const double* one) {
    std::optional<Tensor> many;
    double* checked = call.numbers;
    const int64_t count = call.groups * kParameters;
    if (call.groups > 1) {
      many = empty(&count, 1, ScalarType::Double, type(), 0);
      checked = static_cast<double*>(many->data_ptr());
    }
    for (int64_t i = 0; i < count; ++i) {
      checked[i] = checked_parameter(i % kParameters, (tensor ? tensor : one)[i]);
    }
    call.parameters = checked;
    return many;
  }

  static void place(const Tensor& x) {
    int64_t bytes = 0;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_size(x.get(), &bytes));
    ask_for_huge_pages(x.data_ptr(), static_cast<size_t>(bytes));
  }

  static void check_index(const Call& call) {
    const int64_t rows = call.rows * call.draws;
    uint64_t wrong = 0;  // of all at first: its highest bit, a sign, without a comparison a row
    for (int64_t row = 0; row < rows; ++row) {
      const auto index = static_cast<uint64_t>(call.index[row]);
      wrong |= (index + 1) | (static_cast<uint64_t>(call.columns) - 1 - index);
    }
    for (int64_t row = 0; (call.offsets || wrong >> 63) && row < rows; ++row) {
      STD_TORCH_CHECK(call.index[row] >= -1 && call.index[row] < call.columns_of(row), "index: got ", call.index[row],
                      " in row ", row, ", allowed: -1 to ", call.columns_of(row) - 1);
    }
  }

  static int64_t longest_row(const Call& call, int64_t total) {
    const int64_t first = call.offsets[0], last = call.offsets[call.rows];
    STD_TORCH_CHECK(first == 0 && last == total, "offsets: got ", first, " to ", last, ", allowed: 0 to ", total,
                    ", the number of logits");
    int64_t longest = 0;
    for (int64_t row = 0; row < call.rows; ++row) {
      STD_TORCH_CHECK(call.offsets[row] <= call.offsets[row + 1], "offsets: got ", call.offsets[row + 1], " after ",
                      call.offsets[row], ", allowed: nondecreasing ones");
      longest = std::max(longest, call.columns_of(row));
    }
    return longest;
  }

  static void sample(Call& call, const Tensor&) { launch(kernels().sample, call, 1.5); }

  static void surrogate(Call& call, const Tensor&) {
    const auto draws = static_cast<double>(call.spec.num_samples == kAllDraws ? 8 : call.spec.num_samples);
    const Estimator estimator = call.spec.estimator;
    launch(kernels().surrogate, call, takes_draws(estimator) ? 4.0 * draws + 2 : estimator == kMVE ? 12 : 2);
  }
};

using OnCpu = Operators<Cpu>;

}  // namespace
}  // namespace discrete_ops

#define DISCRETE_OPS_EXPORT extern "C" __attribute__((visibility("default")))

// For build_info(), the tests and bench.instructions, through ctypes.
DISCRETE_OPS_EXPORT const char* discrete_ops_instruction_set() {
  return discrete_ops::kernels().name;
}
DISCRETE_OPS_EXPORT const discrete_ops::Kernels* discrete_ops_kernels() {
  return &discrete_ops::kernels();
}
DISCRETE_OPS_EXPORT void discrete_ops_math(char function, const float* x, float* y, int64_t n) {
  discrete_ops::kernels().math(function, x, y, n);
}
DISCRETE_OPS_EXPORT void discrete_ops_double_math(char function, const double* x, double* y, int64_t n) {
  discrete_ops::kernels().double_math(function, x, y, n);
}

DISCRETE_OPS_LIBRARY_IMPL(DISCRETE_OPS_KERNELS, CPU, m) {
  DISCRETE_OPS_IMPLEMENT(m, discrete_ops::OnCpu)
  DISCRETE_OPS_IMPLEMENT_MANY(m, discrete_ops::OnCpu)
  DISCRETE_OPS_IMPLEMENT_RAGGED(m, discrete_ops::OnCpu)
}
