// The check of every call of torch's C shim, in torch's inline functions, too: in place of theirs, which for an older
// torch than 2.13 leaves out why a call failed. That is for want of memory, mostly. Included before what it is to
// check.
#pragma once

#include <torch/headeronly/util/shim_utils.h>

#include <stdexcept>
#include <string>

// The calling thread's last failure, in torch's words; since 2.13.
extern "C" __attribute__((weak)) const char* torch_exception_get_what_without_backtrace();

namespace discrete_ops {

[[noreturn]] inline void throw_torch_failure(const char* call) {
  if (torch_exception_get_what_without_backtrace) {
    throw std::runtime_error(torch_exception_get_what_without_backtrace());
  }
  throw std::runtime_error(std::string(call) + " failed: torch has logged why");
}

}  // namespace discrete_ops

#undef TORCH_ERROR_CODE_CHECK
#define TORCH_ERROR_CODE_CHECK(call)          \
  if ((call) != TORCH_SUCCESS) {              \
    discrete_ops::throw_torch_failure(#call); \
  }

#include <torch/csrc/stable/library.h>

#ifndef STABLE_TORCH_ERROR_CODE_CHECK  // as a newer torch calls it
#define STABLE_TORCH_ERROR_CODE_CHECK(call) TORCH_ERROR_CODE_CHECK(call)
#endif
