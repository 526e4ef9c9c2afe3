// The operators of csrc/cuda on a CPU, as torch.ops.discrete_ops_emulation, with the schemas of csrc/library.cpp: the
// kernels' own source on emulated threads.
#include "cuda_emulation.h"

#include <dlfcn.h>

#include "cuda/kernels_double.cu"
#include "cuda/kernels_draws.cu"
#include "cuda/kernels_draws_long.cu"
#include "cuda/kernels_mve.cu"
#include "cuda/kernels_sample.cu"
#include "cuda/kernels_usual.cu"
#include "cuda/kernels_without_draws.cu"
#include "operators.h"
#include "schemas.h"

namespace discrete_ops {
namespace {

int most_threads = cuda::kLongThreads;
cuda::Device emulated{2, 1 << 20, 0, 0, [](cuda::Kernel) { return most_threads; }, [](cuda::Kernel) { return 2; }};
bool runs = true;  // else launches are planned, and nothing else
cuda::Launch last{};
cuda::Call last_call{};
std::vector<double> workspace;

struct Emulated {
  using Call = cuda::Call;

  static int32_t type() { return aoti_torch_device_type_cpu(); }

  static int set_parameters(Call& call, const double* tensor, const double* one) {
    call.set_parameters(tensor, one);
    return 0;
  }

  static void place(const Tensor&) {}
  static void check_index(const Call&) {}

  // What a GPU would refuse: of the plan of a long row.
  static void check_residency(const Call& call) {
    if (!call.rounds) return;
    const int64_t bytes = last.shared_bytes + cuda::kReservedBytes, most = emulated.resident_blocks(last.kernel);
    const int64_t fitting = std::max<int64_t>(1, std::min(most, emulated.shared_bytes / bytes));
    STD_TORCH_CHECK(!call.shared_arrays || bytes <= emulated.shared_bytes, "a block has too much shared memory");
    STD_TORCH_CHECK(!last.cooperative || last.blocks <= fitting * emulated.multiprocessors, "blocks wait for ever");
  }

  static void run(Call& call, bool sampling) {
    last = cuda::plan(call, sampling, emulated);
    check_residency(call);
    workspace.assign(static_cast<size_t>(last.workspace_bytes / 8 + 1), NAN);
    cuda::place(call, last, workspace.data());
    std::fill_n(reinterpret_cast<char*>(call.arrived), last.arrived_bytes, 0);
    last_call = call;
    if (!runs) return;
    cuda::device::Emulator::get().launch([&] { last.kernel(call); }, last.blocks, last.threads,
                                         static_cast<size_t>(last.shared_bytes), last.cooperative);
  }

  static void sample(Call& call, const Tensor&) { run(call, true); }
  static void surrogate(Call& call, const Tensor&) { run(call, false); }
};

using OnEmulator = Operators<Emulated>;

}  // namespace
}  // namespace discrete_ops

// Blocks, threads, team, draw groups, split, bytes of workspace of the last launch.
extern "C" void last_launch(int64_t figures[6]) {
  using namespace discrete_ops;
  const int64_t all[] = {last.blocks,           last.threads,    last_call.team,
                         last_call.draw_groups, last_call.split, last.workspace_bytes};
  std::copy(all, all + 6, figures);
}

// For an interpreter of machine code: whether launches run here; then, of the last one, the name of its kernel, which a
// GPU's code has too, and its Call.
extern "C" void set_runs(bool on) {
  discrete_ops::runs = on;
}
extern "C" const char* last_kernel() {
  Dl_info info{};
  dladdr(reinterpret_cast<const void*>(discrete_ops::last.kernel), &info);
  return info.dli_sname;
}
extern "C" const void* last_parameter(int64_t figures[3]) {
  using namespace discrete_ops;
  const int64_t all[] = {sizeof(cuda::Call), last.shared_bytes, last.workspace_bytes};
  std::copy(all, all + 3, figures);
  return &last_call;
}
extern "C" const void* last_workspace() {
  return discrete_ops::workspace.data();
}

// The machine to plan for, and the order in which its threads run (0: as numbered).
extern "C" void set_machine(int multiprocessors, int64_t l2_bytes, int64_t shared_bytes, unsigned order) {
  discrete_ops::emulated.multiprocessors = multiprocessors;
  discrete_ops::emulated.l2_bytes = l2_bytes;
  discrete_ops::emulated.shared_bytes = shared_bytes;
  discrete_ops::emulated.block_shared_bytes = shared_bytes - discrete_ops::cuda::kReservedBytes;
  discrete_ops::cuda::device::Emulator::get().order = order;
}

// Of a block that has a row of many draws in registers.
extern "C" void set_most_threads(int most) {
  discrete_ops::most_threads = most;
}

extern "C" void exponentials(const uint32_t* words, float* noise, int64_t n) {
  for (int64_t i = 0; i < n; ++i) discrete_ops::cuda::exponential(words[i], noise[i]);
}

STABLE_TORCH_LIBRARY(discrete_ops_emulation, m) {
  DISCRETE_OPS_DEFINE(m)
}
STABLE_TORCH_LIBRARY_IMPL(discrete_ops_emulation, CPU, m) {
  DISCRETE_OPS_IMPLEMENT(m, discrete_ops::OnEmulator)
}
