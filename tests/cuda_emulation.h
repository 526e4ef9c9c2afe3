// The machine of csrc/cuda/device.h on a CPU: every GPU thread is a fibre, and fibres switch where threads wait for
// each other. One block runs at a time, or all of a cooperative launch.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <type_traits>
#include <vector>

#define DISCRETE_OPS_DEVICE inline
#define DISCRETE_OPS_KERNEL(threads, blocks) void
#define DISCRETE_OPS_KERNEL_OF_REGISTERS(most) void
#define DISCRETE_OPS_PARAMETER const
#define DISCRETE_OPS_UNROLL
#define DISCRETE_OPS_ROLLED

namespace discrete_ops {
namespace cuda {
namespace device {

struct Barrier {
  int arrived = 0;
  unsigned generation = 0;
};

struct Warp {
  uint64_t values[2][32];
  unsigned exchanges[32] = {};
};

struct Block {
  std::unique_ptr<double[]> shared;  // as aligned as a GPU's
  std::vector<Warp> warps;
  Barrier barriers[16];
};

struct Fibre {
  static constexpr size_t kStack = 1 << 16;
  Block* block;
  int64_t block_index;
  int thread;
  bool started = false, done = false;
  ucontext_t context;
  jmp_buf resume;
  std::unique_ptr<char[]> stack{new char[kStack]};
};

// The launch that is running.
struct Emulator {
  std::function<void()> body;
  std::vector<Fibre> fibres;
  Fibre* current = nullptr;
  jmp_buf scheduler;
  int64_t blocks = 0;
  int threads = 0;
  uint64_t events = 0;  // that may let a waiting fibre go on
  unsigned order = 0;   // in which fibres run: a race would show as a difference between two of them

  static Emulator& get() {
    static Emulator emulator;
    return emulator;
  }

  static void enter() {
    Emulator& e = get();
    e.body();
    e.current->done = true;
    ++e.events;
    _longjmp(e.scheduler, 1);
  }

  void yield() {
    if (_setjmp(current->resume) == 0) _longjmp(scheduler, 1);
  }

  void resume(Fibre& fibre) {
    current = &fibre;
    if (_setjmp(scheduler)) return;
    if (fibre.started) _longjmp(fibre.resume, 1);
    fibre.started = true;
    getcontext(&fibre.context);
    fibre.context.uc_stack.ss_sp = fibre.stack.get();
    fibre.context.uc_stack.ss_size = Fibre::kStack;
    fibre.context.uc_link = nullptr;
    makecontext(&fibre.context, enter, 0);
    setcontext(&fibre.context);
  }

  void run_blocks(int64_t first, int64_t count, size_t shared_bytes) {
    std::vector<Block> resident(static_cast<size_t>(count));
    fibres.resize(static_cast<size_t>(count * threads));
    std::vector<size_t> queue;
    for (size_t i = 0; i < fibres.size(); ++i) {
      Block& block = resident[i / static_cast<size_t>(threads)];
      if (!block.shared) {
        block.shared.reset(new double[shared_bytes / 8]);
        std::fill_n(block.shared.get(), shared_bytes / 8, NAN);  // shared memory starts with anything
        block.warps.resize(static_cast<size_t>(threads + 31) / 32);
      }
      Fibre& fibre = fibres[i];
      fibre.block = &block;
      fibre.block_index = first + static_cast<int64_t>(i) / threads;
      fibre.thread = static_cast<int>(i) % threads;
      fibre.started = fibre.done = false;
      queue.push_back(i);
    }
    if (order) std::shuffle(queue.begin(), queue.end(), std::mt19937(order));
    while (!queue.empty()) {
      const uint64_t before = events;
      for (const size_t i : queue) resume(fibres[i]);
      queue.erase(std::remove_if(queue.begin(), queue.end(), [&](size_t i) { return fibres[i].done; }), queue.end());
      if (events == before) {
        std::fprintf(stderr, "cuda_emulation: %zu threads wait for ever\n", queue.size());
        std::abort();
      }
    }
  }

  void launch(std::function<void()> kernel, int64_t grid, int block_threads, size_t shared_bytes, bool cooperative) {
    body = std::move(kernel);
    blocks = grid;
    threads = block_threads;
    for (int64_t b = 0; b < grid; b += cooperative ? grid : 1) run_blocks(b, cooperative ? grid : 1, shared_bytes);
  }
};

inline int thread() {
  return Emulator::get().current->thread;
}
inline int64_t block() {
  return Emulator::get().current->block_index;
}
inline int64_t blocks() {
  return Emulator::get().blocks;
}

inline int log2_of_power(int x) {
  return __builtin_ctz(static_cast<unsigned>(x));
}

template <class X>
X shuffle(unsigned mask, X x, int source) {
  Emulator& e = Emulator::get();
  Fibre& self = *e.current;
  Warp& warp = self.block->warps[static_cast<size_t>(self.thread / 32)];
  const int lane = self.thread % 32;
  if (!(mask >> lane & 1) || !(mask >> source & 1)) {
    std::fprintf(stderr, "cuda_emulation: lane %d reads lane %d under mask %x\n", lane, source, mask);
    std::abort();
  }
  const unsigned now = warp.exchanges[lane]++;
  std::memcpy(&warp.values[now & 1][lane], &x, sizeof(x));
  ++e.events;
  const auto all_here = [&] {
    for (int i = 0; i < 32; ++i) {
      if ((mask >> i & 1) && warp.exchanges[i] <= now) return false;
    }
    return true;
  };
  while (!all_here()) e.yield();
  std::memcpy(&x, &warp.values[now & 1][source], sizeof(x));
  return x;
}
template <class X>
X shuffle_xor(unsigned mask, X x, int flip) {
  return shuffle(mask, x, (thread() % 32) ^ flip);
}
template <class X>
X shuffle_up(unsigned mask, X x, int step, int width) {
  const int lane = thread() % 32;
  return shuffle(mask, x, lane % width < step ? lane : lane - step);
}

inline bool any(bool x) {
  int found = x;
  for (int flip = 16; flip > 0; flip /= 2) found |= shuffle_xor(~0u, found, flip);
  return found != 0;
}
inline void barrier(int number, int count) {
  Emulator& e = Emulator::get();
  Barrier& b = e.current->block->barriers[number];
  const unsigned generation = b.generation;
  ++e.events;
  if (++b.arrived == count) {
    b.arrived = 0;
    ++b.generation;
  }
  while (b.generation == generation) e.yield();
}
inline void block_barrier() {
  barrier(0, Emulator::get().threads);
}
template <class X>
X unknown(X x) {
  return x;
}
inline char* shared_memory() {
  return reinterpret_cast<char*>(Emulator::get().current->block->shared.get());
}
inline void grid_barrier(unsigned* arrived, unsigned count) {
  Emulator& e = Emulator::get();
  block_barrier();
  if (thread() == 0) {
    const unsigned goal = ((*arrived)++ / count + 1) * count;
    ++e.events;
    while (static_cast<int>(goal - *arrived) > 0) e.yield();
  }
  block_barrier();
}
inline double read_shared(const double* x) {
  return *x;
}

inline int bits_of(float x) {
  int bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
inline float float_of(int bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
inline float half_to_float(uint16_t bits) {
  _Float16 x;
  std::memcpy(&x, &bits, 2);
  return static_cast<float>(x);
}
inline uint16_t float_to_half(float x) {
  const auto half = static_cast<_Float16>(x);
  uint16_t bits;
  std::memcpy(&bits, &half, 2);
  return bits;
}
inline float greater_or_nan(float x, float y) {
  return x > y || x != x ? x : y;
}
inline double greater_or_nan(double x, double y) {
  return x > y || x != x ? x : y;
}
inline float approximate_exp2(float x) {
  return std::exp2(x);
}
inline float approximate_inverse(float x) {
  return 1 / x;
}
inline float approximate_log2(float x) {
  return std::log2(x);
}

}  // namespace device
}  // namespace cuda
}  // namespace discrete_ops
