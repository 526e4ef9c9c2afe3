// bfloat16 as bits, for host and device.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace discrete_ops {

static DISCRETE_OPS_HD float from_bfloat16(uint16_t x) {
  const uint32_t bits = static_cast<uint32_t>(x) << 16;
  float y;
  __builtin_memcpy(&y, &bits, 4);
  return y;
}

static DISCRETE_OPS_HD uint16_t to_bfloat16(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  if (x != x) return 0x7FC0;
  return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);  // to nearest, ties to even
}

}  // namespace discrete_ops
