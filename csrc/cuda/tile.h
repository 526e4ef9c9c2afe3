// A block's rows of a contiguous tensor, staged through shared memory: device memory sees adjacent accesses of 16
// bytes, whatever the length of a row and wherever it begins.
#pragma once

#include "call.h"
#include "device.h"

namespace discrete_ops {
namespace cuda {

// kQuads quads of columns a thread, of elements of at most `sizeof(T)` bytes.
template <class T, int kQuads>
struct Tile {
  static constexpr int kChunks = kQuads * static_cast<int>(sizeof(T)) / 4;  // a thread, at most

  struct alignas(16) Chunk {
    uint32_t words[4];
  };

  char *global, *shared;  // a byte is at the same place modulo 16 in both
  const int element_bits, rank, threads;
  int head, chunks, behind;  // bytes before the first chunk; bytes behind the last one
  Chunk held[kChunks];

  DISCRETE_OPS_DEVICE Tile(const Operand& x, const Call& call, int number)
      : element_bits(device::log2_of_power(bytes_of(x.dtype))),
        rank(device::unknown(device::thread())),  // a tile's addresses are not kept for the next one
        threads(call.team * call.draw_groups * call.block_rows) {
    const int row_bytes = static_cast<int>(call.columns) << element_bits;
    const int64_t left = call.rows - device::block() * call.block_rows;
    const int bytes = (left < call.block_rows ? static_cast<int>(left) : call.block_rows) * row_bytes;
    global = static_cast<char*>(x.data) + device::block() * (call.block_rows * row_bytes);
    const int phase = call.tiles == Tiles::kAligned ? 0 : static_cast<int>(reinterpret_cast<uintptr_t>(global) & 15);
    const int ahead = (16 - phase) & 15;
    shared = device::shared_memory() + kSharedBytes + number * call.tile_bytes + phase;
    head = phase && ahead > bytes ? bytes : ahead;
    chunks = (bytes - head) >> 4;
    behind = (bytes - head) & 15;
  }

  // Between the two memories, by the threads of the block together: first load() of all tiles, so that device memory is
  // waited for once, but for what store() moves at the ends.
  DISCRETE_OPS_DEVICE void load(const char* from) {
    const char* at = from + head + 16 * rank;
    DISCRETE_OPS_UNROLL
    for (int i = 0; i < kChunks; ++i, at += 16 * threads) {
      if (rank + i * threads < chunks) held[i] = *reinterpret_cast<const Chunk*>(at);
    }
  }
  DISCRETE_OPS_DEVICE void store(const char* from, char* to) const {
    char* at = to + head + 16 * rank;
    DISCRETE_OPS_UNROLL
    for (int i = 0; i < kChunks; ++i, at += 16 * threads) {
      if (rank + i * threads < chunks) *reinterpret_cast<Chunk*>(at) = held[i];
    }
    move_ends(from, to);
  }

  // Where a row of the block begins. From the shared pointer alone: one that was computed from a tensor's would be
  // taken for one into device memory.
  DISCRETE_OPS_DEVICE char* at(const Call& call, int64_t row) const {
    const int place = static_cast<int>(row - device::block() * call.block_rows);
    return shared + ((place * static_cast<int>(call.columns)) << element_bits);
  }

 private:
  // The elements before and behind the chunks, fewer than a block has threads.
  DISCRETE_OPS_DEVICE void move_ends(const char* from, char* to) const {
    const int place = rank << element_bits;
    if (place >= head + behind) return;
    const int at = place < head ? place : place + 16 * chunks;
    if (element_bits == 3) {
      move<uint64_t>(from + at, to + at);
    } else if (element_bits == 2) {
      move<uint32_t>(from + at, to + at);
    } else {
      move<uint16_t>(from + at, to + at);
    }
  }

  template <class X>
  static DISCRETE_OPS_DEVICE void move(const char* from, char* to) {
    *reinterpret_cast<X*>(to) = *reinterpret_cast<const X*>(from);
  }
};

}  // namespace cuda
}  // namespace discrete_ops
