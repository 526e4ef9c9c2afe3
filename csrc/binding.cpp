// discrete_ops._C: raw noise for the tests, and what a build was made with in the compiler's own words. A source tree
// has it, for one Python; a wheel, which serves every Python, does not.
#include <pybind11/pybind11.h>

#include <array>
#include <cstdint>

#include "philox.h"

#define DISCRETE_OPS_STRING_(x) #x
#define DISCRETE_OPS_STRING(x) DISCRETE_OPS_STRING_(x)

namespace py = pybind11;

namespace {

py::dict build_info() {
  py::dict info;
#if defined(__clang__)
  info["compiler"] = "clang " __clang_version__;
#elif defined(__GNUC__)
  info["compiler"] = "gcc " __VERSION__;
#endif
  info["torch"] = DISCRETE_OPS_STRING(DISCRETE_OPS_TORCH);
  info["cplusplus"] = static_cast<int64_t>(__cplusplus);
  return info;
}

// The four words of one block of columns in one draw of one row, by the kernels' own Philox.
std::array<uint32_t, 4> philox_words(uint64_t seed, uint32_t block, uint32_t draw, uint64_t row) {
  uint32_t w[4];
  discrete_ops::philox::words(seed, block, draw, row, w);
  return {w[0], w[1], w[2], w[3]};
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Build information and test hooks of discrete_ops";
  m.def("build_info", &build_info, "Compiler, language standard and torch version of the build.");
  m.def(
      "philox_words",
      [](uint64_t seed, uint32_t block, uint32_t draw, uint64_t row) {
        const auto w = philox_words(seed, block, draw, row);
        return py::make_tuple(w[0], w[1], w[2], w[3]);
      },
      py::arg("seed"), py::arg("block"), py::arg("draw"), py::arg("row"),
      "Four uint32 words: columns 4 block .. 4 block + 3 of one draw of one row.");
}
