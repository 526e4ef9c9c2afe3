// torch's loop over threads. ThreadSanitizer cannot see what it orders, and is told: what came before leave() is known
// behind enter().
#pragma once

#include "../torch_check.h"  // before torch's own

#include <torch/csrc/stable/ops.h>

#ifdef __SANITIZE_THREAD__
extern "C" void __tsan_acquire(void*);
extern "C" void __tsan_release(void*);
#endif

namespace discrete_ops {

#ifdef __SANITIZE_THREAD__
inline void enter(const void* loop) {
  __tsan_acquire(const_cast<void*>(loop));
}
inline void leave(const void* loop) {
  __tsan_release(const_cast<void*>(loop));
}
#else
inline void enter(const void*) {}
inline void leave(const void*) {}
#endif

template <class F>
struct Ordered {
  const F& f;

  void operator()(int64_t begin, int64_t end) const {
    enter(this);
    f(begin, end);
    leave(this);
  }
};

template <class F>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const F& f) {
  const Ordered<F> loop{f};
  leave(&loop);
  torch::stable::parallel_for(begin, end, grain, loop);
  enter(&loop);
}

}  // namespace discrete_ops
