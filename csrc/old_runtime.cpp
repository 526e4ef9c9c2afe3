// What a new C++ library takes from a newer runtime than manylinux_2_28 has, here instead: each library has its own.
#include <sstream>

#ifdef __GLIBCXX__

// std::shared_ptr counts without atomics while glibc 2.32 or newer says that the process has one thread. 0: it never
// does.
extern "C" __attribute__((visibility("hidden"))) char __libc_single_threaded = 0;

// Instances that libstdc++ has from GCC 9 on (GLIBCXX_3.4.26); a compiler that does not inline them would refer to it.
template std::ostringstream::basic_ostringstream();
template std::stringstream::basic_stringstream();

#endif
