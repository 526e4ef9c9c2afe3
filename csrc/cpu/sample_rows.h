// The winners of loaded rows by the inverse CDF, accumulated in double so that no category hides.
// Included inside the namespace of an instruction set.

// Draw the winners of one bundle, from softmax(rate * z): inverse CDF, accumulated in double.
template <class R>
static void sample_lane_rows(R& r, typename R::V rate) {
  using T = typename R::T;
  using D = Doubles;
  typedef int64_t Count __attribute__((vector_size(DISCRETE_OPS_BYTES)));
  constexpr int kParts = sizeof(double) / sizeof(T), kPartLanes = DISCRETE_OPS_BYTES / 8;

  const bool at_one = all_lanes(rate == R::Math::set(1));  // nearly always: without a product an element
  D cdf[R::kMost][kParts], first{}, second{};              // sums of the lanes' halves, or of all in the first
  r.invalid = r.invalid | ~(rate == rate);
  for (int s = 0; s < r.n; ++s) {
    const typename R::V weight = R::Math::exp(at_one ? r.z(s) : r.z(s) * rate);
    if constexpr (kParts == 1) {
      cdf[s][0] = first += weight;
    } else {
      cdf[s][0] = first += to_double(half<HalfFloats>(weight, 0));
      cdf[s][1] = second += to_double(half<HalfFloats>(weight, 1));
    }
  }
  for (;;) {
    D target[kParts];
    Words w[4];
    r.words(0, philox::kForwardDraw, w);
    for (int part = 0; part < kParts; ++part) {  // philox::uniform, in vectors
      const D high = to_double(half<HalfWords>(w[0], part)), low = to_double(half<HalfWords>(w[1] >> 12, part));
      target[part] = (high * 0x1p20 + low + 0.5) * 0x1p-52 * (part ? second : first);
    }
    Count count[kParts] = {};
    for (int s = 0; s < r.n; ++s) {
      for (int part = 0; part < kParts; ++part) count[part] -= (Count)(cdf[s][part] <= target[part]);
    }
    if (!R::kRagged && r.lanes == R::kLanes && all_lanes(~(r.invalid | r.empty))) {
      __builtin_memcpy(r.call.index + r.first, count, sizeof(count));
    } else {
      for (int lane = 0; lane < r.lanes; ++lane) {
        const int64_t winner = count[lane / kPartLanes][lane % kPartLanes];
        r.call.index[r.row_of(lane)] = r.invalid[lane] ? kInvalid : r.empty[lane] ? -1 : winner;
      }
    }
    if (!r.take_next_draw()) return;
    r.prepare_noise();
  }
}

// Draw the winner of one long row: the chunk by its sum, then the step, then the column. write() after each draw.
template <class T, class Write>
static void sample_lane_columns(LaneColumns<T>& r, const Write& write) {
  using M = typename LaneColumns<T>::Math;
  using V = typename M::V;
  const V rate = T(1) / r.parameter(kSampleTau);
  r.invalid = r.invalid || rate[0] != rate[0];
  const auto each_draw = [&](const auto& winner) {
    do {
      r.call.index[r.row] = winner();
      write();
    } while (r.take_next_draw());
  };
  if (r.invalid || r.empty) return each_draw([&] { return r.invalid ? kInvalid : -1; });
  r.each_chunk([&](int64_t chunk, int64_t begin, int64_t end) {
    Doubles sums{};
    for (int64_t s = begin; s < end; ++s) sums += folded_to_double(r.a(s) = M::exp(r.z(s) * rate));
    r.partial[2 * chunk] = sum_of_doubles(sums);
  });
  double total = 0;
  for (int64_t chunk = 0; chunk < r.chunks; ++chunk) total += r.partial[2 * chunk];
  each_draw([&] {
    const double target = philox::uniform(r.seed, r.local_row) * total;
    double below = 0, sum;
    int64_t chunk = 0;
    while (chunk + 1 < r.chunks && below + r.partial[2 * chunk] <= target) below += r.partial[2 * chunk++];
    int64_t s = chunk * r.kChunk;
    const int64_t end = s + r.kChunk < r.steps ? s + r.kChunk : r.steps;
    for (; s + 1 < end && below + (sum = sum_of_doubles(folded_to_double(r.a(s)))) <= target; ++s) below += sum;
    const T* const w = reinterpret_cast<const T*>(&r.a(0));
    int64_t winner = s * M::kLanes;
    while (winner + 1 < end * M::kLanes && (below += w[winner]) <= target) ++winner;
    while (!(w[winner] > 0)) --winner;  // where rounding leaves the target beyond the last category
    return winner;
  });
}
