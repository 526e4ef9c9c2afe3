// The C library's allocations, of which one fails when it is told to: preloaded, so that Python's and torch's are among
// them. Counts those of every thread while it is armed.
#include <errno.h>
#include <stdlib.h>

#include <atomic>

extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
}

namespace {

std::atomic<bool> armed{false};
std::atomic<long> seen{0}, failing{0};
std::atomic<size_t> least{0}, failed_bytes{0};

bool fails(size_t bytes) {
  if (!armed.load(std::memory_order_relaxed) || bytes < least || ++seen != failing) return false;
  failed_bytes = bytes;
  errno = ENOMEM;
  return true;
}

}  // namespace

extern "C" {

// The allocation of this number fails, of those of so many bytes from now on.
void fail_allocation(long number, size_t bytes) {
  seen = 0, failed_bytes = 0, failing = number, least = bytes;
  armed = true;
}

// Let all succeed; how many there were.
long allocations() {
  armed = false;
  return seen;
}

// What the one that failed had asked for, or 0.
size_t bytes_refused() {
  return failed_bytes;
}

void* malloc(size_t bytes) {
  return fails(bytes) ? nullptr : __libc_malloc(bytes);
}
void* calloc(size_t count, size_t bytes) {
  return fails(count * bytes) ? nullptr : __libc_calloc(count, bytes);
}
void* realloc(void* old, size_t bytes) {
  return fails(bytes) ? nullptr : __libc_realloc(old, bytes);
}
void* memalign(size_t alignment, size_t bytes) {
  return fails(bytes) ? nullptr : __libc_memalign(alignment, bytes);
}
void* aligned_alloc(size_t alignment, size_t bytes) {
  return memalign(alignment, bytes);
}
int posix_memalign(void** memory, size_t alignment, size_t bytes) {
  void* const found = memalign(alignment, bytes);
  if (!found) return ENOMEM;
  *memory = found;
  return 0;
}
}
