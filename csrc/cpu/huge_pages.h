// Large results in huge pages, on Linux, which gives them to most programs only where they ask. A result is new memory,
// and with pages of 4 KiB the faults of a large one take as long as the kernel that writes it. NumPy asks for its
// arrays, from the same size on.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace discrete_ops {

inline void ask_for_huge_pages([[maybe_unused]] void* data, [[maybe_unused]] size_t bytes) {
#ifdef MADV_HUGEPAGE
  constexpr size_t kLeast = size_t{1} << 22;
  if (bytes < kLeast) return;
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE)), first = reinterpret_cast<uintptr_t>(data);
  const uintptr_t begin = (first + page - 1) & ~(page - 1), end = (first + bytes) & ~(page - 1);
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // refused, the memory is as good
#endif
}

}  // namespace discrete_ops
