// A block's rows of a contiguous tensor, staged through shared memory: device memory sees adjacent accesses of 16
// bytes, whatever the length of a row and wherever it begins.
#pragma once

#include "call.h"
#include "device.h"

namespace discrete_ops {
namespace cuda {

struct Tile {
  char *global, *shared;  // a byte is at the same place modulo 16 in both
  int bytes, element_bits, rank, threads;

  DISCRETE_OPS_DEVICE Tile(const Operand& x, const Call& call, int number)
      : element_bits(device::log2_of_power(bytes_of(x.dtype))),
        rank(device::thread()),
        threads(call.team * call.draw_groups * call.block_rows) {
    const int64_t row_bytes = call.columns << element_bits, first_row = device::block() * call.block_rows;
    const int64_t left = call.rows - first_row;
    global = static_cast<char*>(x.data) + first_row * row_bytes;
    shared = device::shared_memory() + kSharedBytes + number * call.tile_bytes + phase(global);
    bytes = static_cast<int>((left < call.block_rows ? left : call.block_rows) * row_bytes);
  }

  DISCRETE_OPS_DEVICE void read() const { copy(global, shared); }
  DISCRETE_OPS_DEVICE void write() const { copy(shared, global); }

  // Where a row of the block begins. From the shared pointer alone: one that was computed from a tensor's would be
  // taken for one into device memory.
  DISCRETE_OPS_DEVICE char* at(const Call& call, int64_t row) const {
    const int place = static_cast<int>(row - device::block() * call.block_rows);
    return shared + ((place * static_cast<int>(call.columns)) << element_bits);
  }

 private:
  static DISCRETE_OPS_DEVICE int phase(const char* at) {
    return static_cast<int>(reinterpret_cast<uintptr_t>(at) & 15);
  }

  // The threads of the block together.
  DISCRETE_OPS_DEVICE void copy(const char* from, char* to) const {
    const int ahead = (16 - phase(global)) & 15, head = ahead < bytes ? ahead : bytes;
    const int chunks = (bytes - head) / 16, tail = head + 16 * chunks;
    DISCRETE_OPS_ROLLED
    for (int i = rank; i < chunks; i += threads) move<Chunk>(from + head + 16 * i, to + head + 16 * i);
    // The elements before and behind the chunks, fewer than a block has threads.
    const int before = head >> element_bits, behind = (bytes - tail) >> element_bits;
    if (rank >= before + behind) return;
    const int at = rank < before ? rank << element_bits : tail + ((rank - before) << element_bits);
    if (element_bits == 3) {
      move<uint64_t>(from + at, to + at);
    } else if (element_bits == 2) {
      move<uint32_t>(from + at, to + at);
    } else {
      move<uint16_t>(from + at, to + at);
    }
  }

  struct alignas(16) Chunk {
    uint32_t words[4];
  };
  template <class X>
  static DISCRETE_OPS_DEVICE void move(const char* from, char* to) {
    *reinterpret_cast<X*>(to) = *reinterpret_cast<const X*>(from);
  }
};

}  // namespace cuda
}  // namespace discrete_ops
