// The operators on CUDA: the kernels that launch.h chooses, on torch's current stream.
#include <cuda_runtime_api.h>

#define USE_CUDA             // for aoti_torch_get_current_cuda_stream
#include "../torch_check.h"  // before torch's own

#include <torch/csrc/stable/accelerator.h>

#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "../operators.h"
#include "../schemas.h"
#include "launch.h"

namespace discrete_ops {
namespace {

void check(cudaError_t status, const char* what) {
  STD_TORCH_CHECK(status == cudaSuccess, "discrete_ops: ", what, " failed: ", cudaGetErrorString(status));
}

// As check, for what goes to a stream: there CUDA reports an earlier kernel's failure, too, and goes on to report it.
void check_queued(cudaError_t status, const char* what, cudaStream_t stream) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // a failure of this call alone is forgotten: the next one is not to be blamed for it
  check(status, cudaStreamQuery(stream) == status ? "an earlier kernel on this device" : what);
}

int attribute(cudaDeviceAttr name, int device) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, name, device), "cudaDeviceGetAttribute");
  return value;
}

// What ask(the kernel's function) returns, asked once a device, the current one, and kernel; not 0.
template <class F>
int known(cuda::Kernel kernel, const F& ask) {
  static std::mutex mutex;
  static std::map<std::pair<int, cuda::Kernel>, int> answers;
  const std::lock_guard<std::mutex> lock(mutex);
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  int& answer = answers[{device, kernel}];
  if (!answer) answer = ask(reinterpret_cast<const void*>(kernel));
  return answer;
}

constexpr int kUnaskedSharedBytes = 48 << 10;  // what a block has without asking for it

void allow_shared_memory(cuda::Kernel kernel, int most, cudaStream_t stream) {
  known(kernel, [&](const void* function) {
    check_queued(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, most),
                 "cudaFuncSetAttribute", stream);
    return most;
  });
}

int most_threads(cuda::Kernel kernel) {
  return known(kernel, [](const void* function) {
    cudaFuncAttributes attributes{};
    check(cudaFuncGetAttributes(&attributes, function), "cudaFuncGetAttributes");
    return attributes.maxThreadsPerBlock;
  });
}

// Of a kernel for long rows. The cache that shares a multiprocessor's memory gives way to the rows: else not all blocks
// that are planned for might find theirs.
int resident_blocks(cuda::Kernel kernel) {
  return known(kernel, [](const void* function) {
    const auto carveout = cudaFuncAttributePreferredSharedMemoryCarveout;
    if (cudaFuncSetAttribute(function, carveout, cudaSharedmemCarveoutMaxShared) != cudaSuccess) {
      cudaGetLastError();  // it is a hint
    }
    int blocks = 0;
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, function, cuda::kLongThreads, cuda::kSharedBytes),
          "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
    return blocks;
  });
}

// Shared memory of a block that no launch asks for: the same of every kernel.
int fixed_shared_bytes() {
  cudaFuncAttributes attributes{};
  check(cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(cuda::sample_kernel(false, 1))),
        "cudaFuncGetAttributes");
  return static_cast<int>(attributes.sharedSizeBytes);
}

// What launch.h plans by; asked once a device.
cuda::Device device_of(int number) {
  static std::mutex mutex;
  static std::vector<cuda::Device> devices;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto at = static_cast<size_t>(number);
  if (devices.size() <= at) devices.resize(at + 1);
  if (!devices[at].multiprocessors) {
    devices[at] = {attribute(cudaDevAttrMultiProcessorCount, number),
                   attribute(cudaDevAttrL2CacheSize, number),
                   attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor, number),
                   attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, number) - fixed_shared_bytes(),
                   most_threads,
                   resident_blocks};
  }
  return devices[at];
}

void launch(cuda::Call& call, bool sampling, int device_number) {
  const torch::stable::accelerator::DeviceGuard guard(device_number);
  void* opaque = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device_number, &opaque));
  const auto stream = static_cast<cudaStream_t>(opaque);
  const cuda::Device device = device_of(device_number);
  const cuda::Launch plan = cuda::plan(call, sampling, device);
  STD_TORCH_CHECK(plan.blocks < (int64_t{1} << 31), "logits: got ", call.rows, " rows of ", call.columns,
                  " categories, allowed: what fits in 2**31 - 1 blocks of a launch");
  STD_TORCH_CHECK(int64_t{call.rounds} * cuda::kRound < (1 << 28), "logits: got rows of ", call.columns,
                  " categories, allowed: less than 2**28 for each of the ", call.split, " blocks that share one here");
  std::optional<Tensor> workspace;  // freed behind the kernel, in the stream's order
  if (plan.workspace_bytes) {
    workspace = empty(&plan.workspace_bytes, 1, ScalarType::Byte, aoti_torch_device_type_cuda(), device_number);
    cuda::place(call, plan, workspace->data_ptr());
    if (plan.cooperative) {
      const auto bytes = static_cast<size_t>(plan.arrived_bytes);
      check_queued(cudaMemsetAsync(call.arrived, 0, bytes, stream), "cudaMemsetAsync", stream);
    }
  }
  if (plan.shared_bytes > kUnaskedSharedBytes) {
    allow_shared_memory(plan.kernel, static_cast<int>(device.block_shared_bytes), stream);
  }
  cudaLaunchAttribute cooperative{};
  cooperative.id = cudaLaunchAttributeCooperative;
  cooperative.val.cooperative = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(plan.blocks));
  config.blockDim = dim3(static_cast<unsigned>(plan.threads));
  config.dynamicSmemBytes = static_cast<size_t>(plan.shared_bytes);
  config.stream = stream;
  config.attrs = &cooperative;
  config.numAttrs = plan.cooperative ? 1 : 0;
  void* arguments[] = {&call};
  const void* const kernel = reinterpret_cast<const void*>(plan.kernel);
  check_queued(cudaLaunchKernelExC(&config, kernel, arguments), "the launch", stream);
}

struct Cuda {
  using Call = cuda::Call;

  static int32_t type() { return aoti_torch_device_type_cuda(); }

  static int set_parameters(Call& call, const double* tensor, const double* one) {
    call.set_parameters(tensor, one);
    return 0;  // nothing to keep
  }

  static void place(const Tensor&) {}

  // The values are on the device: kernels take one out of range for 0, and never use one as an address.
  static void check_index(const Call&) {}

  static void sample(Call& call, const Tensor& logits) { launch(call, true, logits.get_device_index()); }
  static void surrogate(Call& call, const Tensor& logits) { launch(call, false, logits.get_device_index()); }
};

using OnCuda = Operators<Cuda>;

}  // namespace
}  // namespace discrete_ops

// Why no kernel of this library can run on a device, in the runtime's words: the driver, or no code for it. Null: they
// can.
extern "C" __attribute__((visibility("default"))) const char* discrete_ops_cuda_obstacle(int device) {
  using discrete_ops::cuda::sample_kernel;
  int current = 0;
  cudaFuncAttributes attributes;
  cudaError_t status = cudaGetDevice(&current);
  if (status == cudaSuccess) status = cudaSetDevice(device);
  if (status == cudaSuccess) {
    status = cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(sample_kernel(false, 1)));
    cudaSetDevice(current);
  }
  cudaGetLastError();  // told here, not by the next launch
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}

DISCRETE_OPS_LIBRARY_IMPL(DISCRETE_OPS_KERNELS, CUDA, m) {
  DISCRETE_OPS_IMPLEMENT(m, discrete_ops::OnCuda)
}
