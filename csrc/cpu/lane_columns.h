// The Row of long rows: lanes are neighbouring columns of one row. Sums are taken in chunks of fixed size, in float
// inside a chunk and in double across chunks, so that they are precise and the same for any number of threads.
// Included inside the namespace of an instruction set.

template <class Scalar, Mode kOfMode = Mode::kPullBack>
struct LaneColumns : TakesAllDraws {
  using Math = discrete_ops::DISCRETE_OPS_ISA::Math<Scalar>;
  using T = Scalar;
  using V = typename Math::V;
  using I = typename Math::I;
  using Mask = I;
  static constexpr Mode kMode = kOfMode;
  static constexpr bool kBinary = false;
  static constexpr int kLanes = Math::kLanes;
  static constexpr int64_t kChunk = 64;                    // steps
  static constexpr int kNoiseSteps = 4 * kPerWords<Math>;  // that one call of Philox serves

  const Call& call;
  int64_t n, steps, chunks;                // of the longest row, until one is loaded
  int64_t row = 0, draw = 0, winner_ = 0;  // the row as draws count them
  bool invalid = false, empty = false;
  uint64_t seed = 0, local_row = 0;
  PhiloxVector philox_;
  I iota;
  Words counters;      // of kNoiseSteps' noise, by lane
  Scratch<V> memory_;  // the arrays below, one after the other
  V *const z_, *const v_, *const out_, *const a_, *const b_;
  Words *const rotation_, *const shuffle_;  // of the order of strata, by column: of stratified draws only
  double* const partial;                    // two a chunk
  Scratch<V> more_;                         // of MVE: c, x of moments, the functions of cauchy.h
  Scratch<double> sums_;                    // and the sums of its chunks

  explicit LaneColumns(const Call& call)
      : call(call),
        n(call.columns),
        steps(steps_of(call.columns)),
        chunks((steps + kChunk - 1) / kChunk),
        z_(memory_.of((call.spec.strata.count ? 7 : 5) * steps + (16 * chunks - 1) / DISCRETE_OPS_BYTES + 1)),
        v_(z_ + steps),
        out_(v_ + steps),
        a_(out_ + steps),
        b_(a_ + steps),
        rotation_(reinterpret_cast<Words*>(b_ + steps)),
        shuffle_(call.spec.strata.count ? rotation_ + steps : rotation_),
        partial(reinterpret_cast<double*>(call.spec.strata.count ? shuffle_ + steps : shuffle_)) {
    for (int lane = 0; lane < kLanes; ++lane) iota[lane] = static_cast<typename Math::Index>(lane);
    for (int lane = 0; lane < kFloatLanes; ++lane) counters[lane] = lane % 4 * (kFloatLanes / 4) + lane / 4;
  }

  static int64_t steps_of(int64_t columns) {  // whole blocks of noise
    return (columns + 4 * kFloatLanes - 1) / (4 * kFloatLanes) * kNoiseSteps;
  }

  // --- the Row of surrogates.h ------------------------------------------------------------------------------------

  DISCRETE_OPS_HD V& z(int64_t s) { return z_[s]; }
  DISCRETE_OPS_HD V& v(int64_t s) { return v_[s]; }
  DISCRETE_OPS_HD V& out(int64_t s) { return out_[s]; }
  DISCRETE_OPS_HD V& a(int64_t s) { return a_[s]; }
  DISCRETE_OPS_HD V& b(int64_t s) { return b_[s]; }
  DISCRETE_OPS_HD V& c(int64_t s) { return more_.data[s]; }
  DISCRETE_OPS_HD Mask winner(int64_t s) const {
    return iota == static_cast<typename Math::Index>(winner_ - s * kLanes);
  }

  // f(chunk, first step, end step), over threads if the call lets one row have them.
  template <class F>
  DISCRETE_OPS_HD void each_chunk(const F& f) {
    struct Context {
      const F& f;
      int64_t steps;
    } context{f, steps};
    const Body body = [](int64_t begin, int64_t end, void* opaque) {
      const Context& c = *static_cast<const Context*>(opaque);
      for (int64_t chunk = begin; chunk < end; ++chunk) {
        const int64_t last = (chunk + 1) * kChunk;
        c.f(chunk, chunk * kChunk, last < c.steps ? last : c.steps);
      }
    };
    if (call.team && chunks > 1) {
      call.team(0, chunks, 4, body, &context);
    } else {
      body(0, chunks, &context);
    }
  }

  DISCRETE_OPS_HD int64_t count() const { return steps; }

  template <class F>
  DISCRETE_OPS_HD void each(const F& f) {
    each_chunk([&](int64_t, int64_t begin, int64_t end) {
      for (int64_t s = begin; s < end; ++s) f(s);
    });
  }

  template <class F>
  DISCRETE_OPS_HD void sum2(const F& f, V& a, V& b) {
    each_chunk([&](int64_t chunk, int64_t begin, int64_t end) {
      V x, y, sum_a = V{}, sum_b = V{}, odd_a = V{}, odd_b = V{};  // two chains of additions, for their latency
      for (int64_t s = begin; s < end; s += 2) {                   // which are multiples of 4
        f(s, x, y);
        sum_a += x, sum_b += y;
        f(s + 1, x, y);
        odd_a += x, odd_b += y;
      }
      partial[2 * chunk] = sum_of_doubles(folded_to_double(sum_a + odd_a));
      partial[2 * chunk + 1] = sum_of_doubles(folded_to_double(sum_b + odd_b));
    });
    double total_a = 0, total_b = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      total_a += partial[2 * chunk];
      total_b += partial[2 * chunk + 1];
    }
    a = Math::set(static_cast<T>(total_a));
    b = Math::set(static_cast<T>(total_b));
  }

  template <class F>
  DISCRETE_OPS_HD V sum(const F& f) {
    V total, unused;
    sum2([&](auto s, V& a, V& b) DISCRETE_OPS_INLINE { a = f(s), b = V{}; }, total, unused);
    return total;
  }

  template <class F>
  DISCRETE_OPS_HD V max(const F& f) {
    each_chunk([&](int64_t chunk, int64_t begin, int64_t end) {
      V top = Math::set(-Math::kInf);
      for (int64_t s = begin; s < end; ++s) top = Math::max(top, f(s));
      keep_max(chunk, top);
    });
    return max_of_chunks();
  }
  DISCRETE_OPS_HD void keep_max(int64_t chunk, V top) {
    T most = top[0];
    for (int lane = 1; lane < kLanes; ++lane) most = top[lane] > most ? top[lane] : most;
    partial[2 * chunk] = most;
  }
  DISCRETE_OPS_HD V max_of_chunks() const {
    double most = partial[0];
    for (int64_t chunk = 1; chunk < chunks; ++chunk) most = partial[2 * chunk] > most ? partial[2 * chunk] : most;
    return Math::set(static_cast<T>(most));
  }

  void prepare_cauchy(const CauchyTerms<Math>& terms) {
    V* const u = more_.of((2 + terms.count) * steps) + 2 * steps;
    sums_.of(chunks * terms.count);
    each([&](int64_t s) { cauchy_functions(terms, a_[s], u + s * terms.count); });
  }

  template <class F>
  void moments(const CauchyTerms<Math>& terms, const F& f, V* h) {
    V* const x = more_.data + steps;
    const V* const u = x + steps;
    each_chunk([&](int64_t chunk, int64_t begin, int64_t end) {
      for (int64_t s = begin; s < end; ++s) x[s] = f(s);
      for (int k = 0; k < terms.count; k += 3) {
        V sums[3];
        add_moments(u + k, terms.count, x, begin, end, sums);
        for (int i = 0; i < 3; ++i) {
          sums_.data[chunk * terms.count + k + i] = sum_of_doubles(folded_to_double(sums[i]));
        }
      }
    });
    for (int k = 0; k < terms.count; ++k) {
      double total = 0;
      for (int64_t chunk = 0; chunk < chunks; ++chunk) total += sums_.data[chunk * terms.count + k];
      h[k] = Math::set(static_cast<T>(total));
    }
  }

  template <class F>
  void expand(const CauchyTerms<Math>& terms, const V* h, const F& f) {
    const V* const u = more_.data + 2 * steps;
    each([&](int64_t s) { f(s, cauchy_sum(terms.count, u + s * terms.count, h)); });
  }

  void set_winner_argmax() {
    const T* z = reinterpret_cast<const T*>(z_);
    for (winner_ = 0; z[winner_] != T(0);) ++winner_;
  }

  DISCRETE_OPS_HD V exponentials(uint32_t k) { return noise_of_draw(k); }
  DISCRETE_OPS_HD V stratified_exponentials(uint32_t k, uint32_t i) { return noise_of_draw(k, i); }

  // `which` is the draw, and its place among those that share their strata, if it does.
  template <class... Which>
  DISCRETE_OPS_HD V noise_of_draw(Which... which) {
    each_chunk([&](int64_t, int64_t begin, int64_t end) {
      for (int64_t s = begin; s < end; s += kNoiseSteps) exponentials(s, which..., a_ + s);
    });
    return Math::set(reinterpret_cast<const T*>(a_)[winner_]);
  }

  // --- loading and storing ----------------------------------------------------------------------------------------

  // False of a ragged row that is short.
  bool load(int64_t at_row) {
    row = at_row, draw = 0;
    if (call.offsets) {
      n = call.columns_of(row), steps = steps_of(n);
      chunks = (steps + kChunk - 1) / kChunk;
      if (n <= kShortRow) return false;
    }
    const int64_t per_seed = call.rows / call.seeds;
    seed = static_cast<uint64_t>(call.seed[row / per_seed]);
    local_row = static_cast<uint64_t>(call.first_row + row % per_seed);
    const V infinity = Math::set(Math::kInf), masked = -infinity;
    read(call.logits, z_, -Math::kInf, [&](int64_t chunk, int64_t begin, int64_t end, const auto& read_step) {
      V top = masked;
      for (int64_t s = begin; s < end; ++s) {
        z_[s] = read_step(s);
        top = Math::max(top, Math::min(z_[s], infinity));  // a NaN is taken for the second
      }
      keep_max(chunk, top);
    });
    const V top = max_of_chunks();
    invalid = top[0] == Math::kInf;  // +inf, or a NaN
    empty = top[0] == -Math::kInf;
    if (invalid || empty) return true;
    each([&](int64_t s) {  // a difference beyond the finite range is no mask
      z_[s] = Math::select(z_[s] == masked, masked, Math::max(z_[s] - top, Math::set(Math::kLowest)));
    });
    return true;
  }

  // Go on with the next draw of this row, if there is one: its index, its gradient, its noise.
  bool take_next_draw() {
    if (++draw == call.draws) return false;
    row += call.rows;
    local_row += static_cast<uint64_t>(call.rows / call.seeds);
    return true;
  }

  void take_first_draw() { row %= call.rows, draw = 0; }

  bool without_sample() const { return invalid || empty; }

  void load_winner() { winner_ = call.index[row] < 0 ? 0 : call.index[row]; }

  void load_grad() {
    const V scale = Math::set(static_cast<T>(call.grad_scale));
    read(call.grad, v_, 0, [&](int64_t, int64_t begin, int64_t end, const auto& read_step) {
      for (int64_t s = begin; s < end; ++s) v_[s] = Math::select(z_[s] == -Math::kInf, V{}, read_step(s) * scale);
    });
  }

  void expect_grad(int64_t) const {}  // the processor sees it coming

  V parameter(Parameter p) const {
    return Math::set(static_cast<T>(call.parameters[row % call.rows / (call.rows / call.groups) * kParameters + p]));
  }

  // then(chunk, first step, end step, read_step): read_step(s) takes a vector from where x lies, if it lies there as
  // one, or from `to`, where the others have been put, with `padding` behind the last column.
  template <class F>
  void read(const Operand& x, V* to, T padding, const F& then) {
    T* elements = reinterpret_cast<T*>(to);
    read_as<T>(x, [&](const auto* data, auto convert) {
      const auto* from = data + call.start_of(row, x);
      const int64_t stride = x.column_stride;
      each_chunk([&](int64_t chunk, int64_t begin, int64_t end) {
        if constexpr (sizeof(*data) == sizeof(T)) {
          if (stride == 1 && end * kLanes <= n) {
            return then(chunk, begin, end, [=](int64_t s) {
              V step;
              __builtin_memcpy(&step, from + s * kLanes, sizeof(step));
              return step;
            });
          }
        }
        const int64_t stop = end * kLanes < n ? end * kLanes : n;
        const int64_t start = begin * kLanes, count = stop > start ? stop - start : 0;
        read_row(from + start * stride, stride, count, elements + start, convert);
        for (int64_t j = start + count; j < end * kLanes; ++j) elements[j] = padding;
        then(chunk, begin, end, [=](int64_t s) { return to[s]; });
      });
    });
  }

  void store() {
    const T* elements = reinterpret_cast<const T*>(out_);
    const T scale = static_cast<T>(kMode == Mode::kPullBack ? call.inverse_grad_scale : 1);  // undoes the gradient's
    write_as<T>(call.out, [&](auto* data, auto convert) {
      auto* to = data + call.start_of(row);
      const bool fill = invalid || empty;
      const auto filler = convert(invalid ? static_cast<T>(__builtin_nan("")) : T(0));
      each_chunk([&](int64_t, int64_t begin, int64_t end) {
        const int64_t start = begin * kLanes, stop = end * kLanes < n ? end * kLanes : n;
        if (fill) {
          for (int64_t j = start; j < stop; ++j) to[j] = filler;
        } else {
          write_row(elements + start, scale, stop - start, to + start, convert);
        }
      });
    });
  }

  // --- noise ------------------------------------------------------------------------------------------------------

  void prepare_noise() {
    philox_.set_seeds(Words{} + static_cast<uint32_t>(seed), Words{} + static_cast<uint32_t>(seed >> 32));
    if (!call.spec.strata.count) return;
    each_chunk([&](int64_t, int64_t begin, int64_t end) {
      for (int64_t s = begin; s < end; s += kNoiseSteps) {
        Words* const rotation = rotation_ + s / kPerWords<Math>;
        words(s, philox::kStrataDraw, rotation);
        words(s, philox::kShuffleDraw, shuffle_ + s / kPerWords<Math>);
        for (int i = 0; i < 4; ++i) rotation[i] = upper(rotation[i], call.spec.strata.count);
      }
    });
  }

  // Of the kNoiseSteps from step s on, a multiple of them, in the order of their columns.
  DISCRETE_OPS_HD void words(int64_t s, uint32_t k, Words out[4]) const {
    const Words row_low = Words{} + static_cast<uint32_t>(local_row);
    const Words row_high = Words{} + static_cast<uint32_t>(local_row >> 32);
    const uint32_t block = static_cast<uint32_t>(s) / kNoiseSteps * kFloatLanes;
    philox_(counters + block, Words{} + k, row_low, row_high, out);
    transpose_quarters(out);  // word i of counter c belongs to column 4 c + i
  }

  DISCRETE_OPS_HD void exponentials(int64_t s, uint32_t k, V* e) const {
    Words w[4];
    words(s, k, w);
    for (int i = 0; i < kNoiseSteps; ++i) {
      e[i] = exponential<Math>(numbers<Math>(w[i / kPerWords<Math>], i % kPerWords<Math>));
    }
  }

  // Of the i-th draw of the strata.
  DISCRETE_OPS_HD void exponentials(int64_t s, uint32_t k, uint32_t i, V* e) const {
    const philox::Strata& strata = call.spec.strata;
    Words stratum[4], w[4];
    philox::strata_of_draw<4>(strata, i, rotation_ + s / kPerWords<Math>, shuffle_ + s / kPerWords<Math>, stratum);
    words(s, k, w);
    for (int j = 0; j < kNoiseSteps; ++j) {
      const auto of_step = [&](const Words* x) { return numbers<Math>(x[j / kPerWords<Math>], j % kPerWords<Math>); };
      e[j] = exponential<Math>(of_step(w), of_step(stratum), strata.width);
    }
  }
};
