// The commonest calls.
#include "kernels.h"
#include "launch.h"

namespace discrete_ops {
namespace cuda {

// Of the threads of a row of 32 to 1024 columns; 0 for longer ones.
template <class F>
Kernel with_team(int team, const F& instance) {
  return with_one_of<2, 4, 8, 16, 32, 64, 0>(team, instance);
}

Kernel usual_sample_kernel(bool is_short, int quads, int team) {
  if (!is_short) {
    return with_team(team, [](auto t) { return Kernel(sample_usual<WholeRows<decltype(t)::value>, kFloatQuads>); });
  }
  return with_quads(quads, [](auto q) { return Kernel(sample_usual<ShortRows, decltype(q)::value>); });
}

template <Serves kServes>
Kernel usual_kernel(bool is_short, int quads, int team) {
  if (!is_short) {
    return with_team(team, [](auto t) {
      return Kernel(surrogate_usual<WholeRows<decltype(t)::value>, kFloatQuads, Mode::kPullBack, kServes>);
    });
  }
  return with_quads(
      quads, [](auto q) { return Kernel(surrogate_usual<ShortRows, decltype(q)::value, Mode::kPullBack, kServes>); });
}

Kernel usual_kernel(bool is_short, int quads, int team, bool draws) {
  return draws ? usual_kernel<Serves::kWithDraws>(is_short, quads, team)
               : usual_kernel<Serves::kWithoutDraws>(is_short, quads, team);
}

}  // namespace cuda
}  // namespace discrete_ops
