// Counts the instructions that the CPU kernels execute, one by one: the processor's trap flag stops behind each.
// Without counters of the processor's, which virtual machines lack, and without ptrace, which containers refuse. Loaded
// by instructions.py beside the library, in whose table of kernels it takes the kernels' places.
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../csrc/cpu/kernels.h"

namespace {

using discrete_ops::Call;
using discrete_ops::Kernels;

constexpr unsigned long long kTrapFlag = 0x100;

Kernels kernels;
uintptr_t code_begin, code_end, previous;
int64_t count;

// Of the library's code alone: what the C library runs for it depends on the machine. A repeated string instruction
// traps at every turn, and is one.
void step(int, siginfo_t*, void* opaque) {
  const auto at = static_cast<uintptr_t>(static_cast<ucontext_t*>(opaque)->uc_mcontext.gregs[REG_RIP]);
  count += at >= code_begin && at < code_end && at != previous;
  previous = at;
}

template <auto kKernel>
void counted(const Call& call, int64_t begin, int64_t end) {
  const auto kernel = kernels.*kKernel;
  __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() | kTrapFlag);
  kernel(call, begin, end);
  __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() & ~kTrapFlag);
}

}  // namespace

// From now on, count in the code [begin, end) of the library whose table this is.
extern "C" bool count_instructions(Kernels* table, uintptr_t begin, uintptr_t end) {
  kernels = *table;
  code_begin = begin, code_end = end;
  struct sigaction action{};
  action.sa_sigaction = step;
  action.sa_flags = SA_SIGINFO;
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE)), first = reinterpret_cast<uintptr_t>(table) & -page;
  const size_t bytes = reinterpret_cast<uintptr_t>(table + 1) - first;
  if (sigaction(SIGTRAP, &action, nullptr) || mprotect(reinterpret_cast<void*>(first), bytes, PROT_READ | PROT_WRITE)) {
    return false;
  }
  table->sample = counted<&Kernels::sample>;
  table->surrogate = counted<&Kernels::surrogate>;
  return true;
}

// Since it was last asked.
extern "C" int64_t counted_instructions() {
  const int64_t counted = count;
  count = 0;
  return counted;
}
