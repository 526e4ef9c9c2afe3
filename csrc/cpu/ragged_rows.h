// Which rows a bundle of short ones has side by side in its lanes, and their columns.
// Included inside the namespace of an instruction set.

enum class Rows { kEven, kBinary, kRagged };

// Neighbours, all as long.
template <Rows kRows>
struct RowLength {
  const int n;
  explicit RowLength(const Call& call) : n(static_cast<int>(call.columns)) {}
};

template <>
struct RowLength<Rows::kBinary> {
  static constexpr int n = 2;
  explicit RowLength(const Call&) {}
};

// Rows of a block of ragged ones in the order of their lengths, so that few lanes wait for the longest of a bundle.
template <>
struct RowLength<Rows::kRagged> {
  static constexpr int kMostLanes = DISCRETE_OPS_BYTES / 4;
  int n = 0;  // of the bundle's longest
  int64_t numbers[kMostLanes], begins[kMostLanes];
  int columns[kMostLanes];
  int64_t order[kBlock];  // the block's short rows
  int64_t in_block = 0;   // how many they are

  explicit RowLength(const Call&) {}

  // Those at the place `first`, blocks one after the other; returns how many they are. The lanes behind them have the
  // first one's number, and no columns.
  int choose(const Call& call, int64_t first, int lanes) {
    const int64_t place = first % kBlock;
    if (place == 0) sort(call, first);
    if (place >= in_block) return 0;
    const int count = in_block - place < lanes ? static_cast<int>(in_block - place) : lanes;
    for (int lane = 0; lane < lanes; ++lane) {
      numbers[lane] = order[place + (lane < count ? lane : 0)];
      begins[lane] = call.offsets[numbers[lane]];
      columns[lane] = lane < count ? static_cast<int>(call.columns_of(numbers[lane])) : 0;
    }
    n = columns[count - 1];
    return count;
  }

  void sort(const Call& call, int64_t begin) {
    const int64_t end = begin + kBlock < call.rows ? begin + kBlock : call.rows;
    int64_t place[kShortRow + 2] = {};  // of the next row of each length
    for (int64_t row = begin; row < end; ++row) {
      if (call.columns_of(row) <= kShortRow) ++place[call.columns_of(row) + 1];
    }
    for (int64_t columns = 0; columns <= kShortRow; ++columns) place[columns + 1] += place[columns];
    in_block = place[kShortRow + 1];
    for (int64_t row = begin; row < end; ++row) {
      if (call.columns_of(row) <= kShortRow) order[place[call.columns_of(row)]++] = row;
    }
  }
};
