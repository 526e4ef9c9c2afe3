// The Row of short rows: each SIMD lane is one row, each step one column. Reductions stay inside the lanes.
// Included inside the namespace of an instruction set.

template <class Scalar, Mode kOfMode = Mode::kPullBack, Rows kRows = Rows::kEven>
struct LaneRows : TakesAllDraws, TurnedRows<Scalar, kRows> {
  using Base = TurnedRows<Scalar, kRows>;
  using T = Scalar;
  using typename Base::I;
  using typename Base::Math;
  using typename Base::V;
  using Mask = I;
  static constexpr Mode kMode = kOfMode;
  static constexpr bool kBinary = kRows == Rows::kBinary;
  static constexpr int kMost = kBinary ? 2 : kShortRow;
  static constexpr int kNoiseColumns = 4 * kPerWords<Math>;  // that one call of Philox serves
  using Base::call, Base::first, Base::kLanes, Base::kRagged, Base::lanes, Base::n, Base::row_of;

  int64_t draw = 0;
  V z_[kMost], v_[kMost], out_[kMost];
  V a_[kMost], b_[kMost], c_[kMost];
  Scratch<V> u_;  // the functions of cauchy.h, a step's side by side
  I winner_;
  Mask invalid, empty;  // NaN or +inf in the row; masked whole
  bool finite = false;  // all logits are: no row is either, no category masked
  PhiloxVector philox_;
  Words row_low, row_high;
  bool has_keys = false;
  Words rotation_[kMost + 3], shuffle_[kMost + 3];  // of the order of strata, as words() gives them
  Node<V> nodes[kBinary ? (sizeof(T) == 8 ? kDoubleNodes : kFloatNodes) : 1];
  int nodes_made = 0;

  explicit LaneRows(const Call& call) : Base(call) {}

  // --- the Row of surrogates.h ------------------------------------------------------------------------------------

  DISCRETE_OPS_HD V& z(int s) { return z_[s]; }
  DISCRETE_OPS_HD V& v(int s) { return v_[s]; }
  DISCRETE_OPS_HD V& out(int s) { return out_[s]; }
  DISCRETE_OPS_HD V& a(int s) { return a_[s]; }
  DISCRETE_OPS_HD V& b(int s) { return b_[s]; }
  DISCRETE_OPS_HD V& c(int s) { return c_[s]; }
  DISCRETE_OPS_HD Mask winner(int s) const { return winner_ == static_cast<typename Math::Index>(s); }

  DISCRETE_OPS_HD int64_t count() const { return n; }

  template <class F>
  DISCRETE_OPS_HD void each(const F& f) {
    for (int s = 0; s < n; ++s) f(s);
  }

  template <class F>
  DISCRETE_OPS_HD void sum2(const F& f, V& a, V& b) {
    V x, y, odd_a = V{}, odd_b = V{};  // two chains of additions, for their latency
    a = b = V{};
    int s = 0;
    for (; s + 1 < n; s += 2) {
      f(s, x, y);
      a += x, b += y;
      f(s + 1, x, y);
      odd_a += x, odd_b += y;
    }
    if (s < n) {
      f(s, x, y);
      a += x, b += y;
    }
    a += odd_a, b += odd_b;
  }

  template <class F>
  DISCRETE_OPS_HD V sum(const F& f) {
    V total, unused;
    sum2([&](auto s, V& a, V& b) DISCRETE_OPS_INLINE { a = f(s), b = V{}; }, total, unused);
    return total;
  }

  template <class F>
  DISCRETE_OPS_HD V max(const F& f) {
    V top = Math::set(-Math::kInf);
    for (int s = 0; s < n; ++s) top = Math::max(top, f(s));
    return top;
  }

  DISCRETE_OPS_HD void prepare_cauchy(const CauchyTerms<Math>& terms) {
    V* u = u_.of(n * terms.count);
    for (int s = 0; s < n; ++s, u += terms.count) cauchy_functions(terms, a_[s], u);
  }

  // Three terms at a time, whose sums stay in registers.
  template <class F>
  DISCRETE_OPS_HD void moments(const CauchyTerms<Math>& terms, const F& f, V* h) {
    V x[kShortRow];
    for (int s = 0; s < n; ++s) x[s] = f(s);
    for (int k = 0; k < terms.count; k += 3) add_moments(u_.data + k, terms.count, x, 0, n, h + k);
  }

  template <class F>
  DISCRETE_OPS_HD void expand(const CauchyTerms<Math>& terms, const V* h, const F& f) {
    const V* u = u_.data;
    for (int s = 0; s < n; ++s, u += terms.count) f(s, cauchy_sum(terms.count, u, h));
  }

  DISCRETE_OPS_HD void set_winner_argmax() {
    for (int s = n - 1; s >= 0; --s) winner_ = z_[s] == T(0) ? I{} + s : winner_;
  }

  template <class Make>
  DISCRETE_OPS_HD const Node<V>& node(int k, const Make& make) {
    if (k >= nodes_made) {
      nodes[k] = make();
      if (call.groups == 1) nodes_made = k + 1;
    }
    return nodes[k];
  }

  DISCRETE_OPS_HD V exponentials(uint32_t k) { return noise_of_draw(k); }
  DISCRETE_OPS_HD V stratified_exponentials(uint32_t k, uint32_t i) { return noise_of_draw(k, i); }

  // `which` is the draw, and its place among those that share their strata, if it does.
  template <class... Which>
  DISCRETE_OPS_HD V noise_of_draw(Which... which) {
    V of_winner = Math::set(1);
    for (int s = 0; s < n; s += kNoiseColumns) {
      V e[kNoiseColumns];
      exponentials(s, which..., e);
      for (int i = 0; i < kNoiseColumns && s + i < n; ++i) {
        a_[s + i] = e[i];
        of_winner = Math::select(winner(s + i), e[i], of_winner);
      }
    }
    return of_winner;
  }

  // --- loading and storing ----------------------------------------------------------------------------------------

  // Take the rows first_row .. first_row + kLanes - 1, those that exist, with their logits minus the maximum. Of ragged
  // ones, as many of their block in the order of lengths; false if none are left.
  bool load(int64_t first_row) {
    first = first_row, draw = 0;
    lanes = static_cast<int>(call.rows - first < kLanes ? call.rows - first : kLanes);
    if constexpr (kRagged) {
      lanes = this->choose(call, first, kLanes);
      if (lanes == 0) return false;
    }
    if constexpr (kBinary) {
      load_variables();
    } else {
      load_logits();
    }
    return true;
  }

  void load_logits() {
    V top = Math::set(-Math::kInf);
    I differs{};  // no bit of a finite number's difference from itself: an or waits for less than a sum would
    this->transpose_in(call.logits, z_, [&](V z) {
      top = Math::max(z, top), differs |= (I)(z - z);
      return z;
    });
    finite = n > 0 && all_lanes(differs == 0);
    if (finite) {
      invalid = empty = Mask{};
      for (int s = 0; s < n; ++s) z_[s] = Math::max(z_[s] - top, Math::set(Math::kLowest));
    } else {
      mask_logits();
    }
  }

  void mask_logits() {
    V top = Math::set(-Math::kInf);
    const V infinity = Math::set(Math::kInf);
    for (int s = 0; s < n; ++s) top = Math::max(top, Math::select(z_[s] < infinity, z_[s], infinity));
    invalid = top == infinity;  // +inf, or a NaN that was taken for it
    empty = top == -infinity;
    const Mask valid = ~(invalid | empty);
    for (int s = 0; s < n; ++s) {
      const V z = Math::select(z_[s] == -infinity, -infinity, Math::max(z_[s] - top, Math::set(Math::kLowest)));
      z_[s] = Math::select(valid, z, V{});
    }
  }

  // Go on with the next draw of these rows, if there is one: its index, its gradient, its noise.
  bool take_next_draw() {
    if (++draw == call.draws) return false;
    first += call.rows;
    return true;
  }

  void take_first_draw() { first %= call.rows, draw = 0; }

  void load_variables() {
    V l = this->read_variables(call.logits);
    invalid = ~(l == l);
    empty = Mask{};
    l = Math::select(invalid, V{}, l);
    z_[0] = Math::min(l, V{}), z_[1] = Math::min(-l, V{});  // of +inf, a masked other category
  }

  bool without_sample() const { return n == 0; }  // other such lanes compute on zeros; store() overwrites them

  void load_winner() {
    typedef int64_t Indices __attribute__((vector_size(8 * kLanes), aligned(8)));
    if (!kRagged && lanes == kLanes) {
      winner_ = __builtin_convertvector(*reinterpret_cast<const Indices*>(call.index + first), I);
    } else {
      winner_ = I{};
      for (int lane = 0; lane < lanes; ++lane) {
        winner_[lane] = static_cast<typename Math::Index>(call.index[row_of(lane)]);
      }
    }
    winner_ = winner_ < 0 ? I{} : winner_;
  }

  void load_grad() {
    const V scale = Math::set(static_cast<T>(call.grad_scale));
    if constexpr (kBinary) {  // none where the outcome is certain
      const V least = Math::min(z_[0], z_[1]);
      v_[0] = Math::select(least == -Math::kInf, V{}, this->read_variables(call.grad) * scale), v_[1] = V{};
      return;
    }
    this->transpose_in(call.grad, v_, [&](V v) { return v * scale; });
    for (int s = 0; s < n && !finite; ++s) v_[s] = Math::select(z_[s] == -Math::kInf, V{}, v_[s]);
  }

  // Ask for the gradient of the rows that come so many later: far from these, where no processor looks for it.
  void expect_grad(int64_t later) const {
    const Operand& x = call.grad;
    if (x.column_stride != 1) return;
    const int64_t size = bytes_of(x.dtype), bytes = n * size;
    for (int lane = 0; lane < lanes; ++lane) {
      const char* const row = static_cast<const char*>(x.data) + x.offset(first + later + lane) * size;
      for (int64_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(row + byte);
    }
  }

  V parameter(Parameter p) const {
    V value = Math::set(static_cast<T>(call.parameters[p]));
    if (call.groups == 1) return value;  // without a division, which is as slow as a column
    const int64_t per_group = call.rows / call.groups;
    for (int lane = 0; lane < lanes; ++lane) {
      value[lane] = static_cast<T>(call.parameters[(row_of(lane) - draw * call.rows) / per_group * kParameters + p]);
    }
    return value;
  }

  void store() {
    const V nan = Math::set(static_cast<T>(__builtin_nan(""))), scale = out_scale();
    if constexpr (kBinary) return this->write_variables(Math::select(invalid, nan, out_[0] * scale));
    for (int s = 0; s < n && !finite; ++s) out_[s] = Math::select(empty, V{}, Math::select(invalid, nan, out_[s]));
    this->transpose_out(out_, scale);
  }

  // What undoes that of the gradient.
  V out_scale() const { return Math::set(static_cast<T>(kMode == Mode::kPullBack ? call.inverse_grad_scale : 1)); }

  // --- noise ------------------------------------------------------------------------------------------------------

  // The words of kNoiseColumns columns from s on, each lane its own row: of column s + i, and where a vector of words
  // is two of doubles, of column s + 4 + i in its other half. Keys are kept while the seed is the same.
  DISCRETE_OPS_HD void words(int s, uint32_t k, Words out[4]) {
    philox_(block_of_lane() + static_cast<uint32_t>(s / 4), Words{} + k, row_low, row_high, out);
  }

  void prepare_noise() {
    prepare_keys();
    if (!call.spec.strata.count) return;
    for (int s = 0; s < n; s += kNoiseColumns) {
      Words w[4];
      words(s, philox::kStrataDraw, w);
      for (int i = 0; i < 4; ++i) rotation_[s / kPerWords<Math> + i] = upper(w[i], call.spec.strata.count);
      words(s, philox::kShuffleDraw, shuffle_ + s / kPerWords<Math>);
    }
  }

  void prepare_keys() {
    const int64_t number = call.first_row + first;
    if (!kRagged && call.seeds == 1 && (number >> 32) == ((number + kLanes) >> 32)) {  // the common case
      const auto key = static_cast<uint64_t>(call.seed[0]);
      if (!has_keys) philox_.set_seeds(splat(key), splat(key >> 32));
      row_low = splat(static_cast<uint64_t>(number)) + row_of_lane();
      row_high = splat(static_cast<uint64_t>(number) >> 32);
      has_keys = true;
      return;
    }
    const int64_t per_seed = call.rows / call.seeds;
    Words low{}, high{};
    for (int lane = 0; lane < kLanes; ++lane) {
      const int64_t row = row_of(lane < lanes ? lane : 0) - draw * call.rows;
      const int64_t group = call.seeds == 1 ? 0 : row / per_seed;
      const auto seed = static_cast<uint64_t>(call.seed[group]);
      const auto local_row = static_cast<uint64_t>(call.first_row + draw * per_seed + row - group * per_seed);
      for (int i = lane; i < kFloatLanes; i += kLanes) {
        low[i] = static_cast<uint32_t>(seed), high[i] = static_cast<uint32_t>(seed >> 32);
        row_low[i] = static_cast<uint32_t>(local_row), row_high[i] = static_cast<uint32_t>(local_row >> 32);
      }
    }
    philox_.set_seeds(low, high);
  }

  static DISCRETE_OPS_HD Words splat(uint64_t x) { return Words{} + static_cast<uint32_t>(x); }
  static DISCRETE_OPS_HD Words block_of_lane() {
    Words blocks{};
    if constexpr (kPerWords<Math> == 2) {
      for (int lane = kLanes; lane < kFloatLanes; ++lane) blocks[lane] = 1;
    }
    return blocks;
  }
  static DISCRETE_OPS_HD Words row_of_lane() {
    Words lanes;
    for (int lane = 0; lane < kFloatLanes; ++lane) lanes[lane] = lane % kLanes;
    return lanes;
  }

  DISCRETE_OPS_HD void exponentials(int s, uint32_t k, V e[kNoiseColumns]) {
    Words w[4];
    words(s, k, w);
    for (int part = 0; part < kPerWords<Math> && s + 4 * part < n; ++part) {
      for (int i = 0; i < 4; ++i) e[4 * part + i] = exponential<Math>(numbers<Math>(w[i], part));
    }
  }

  // Of the i-th draw of the strata.
  DISCRETE_OPS_HD void exponentials(int s, uint32_t k, uint32_t i, V e[kNoiseColumns]) {
    const philox::Strata& strata = call.spec.strata;
    Words stratum[4], w[4];
    philox::strata_of_draw<4>(strata, i, rotation_ + s / kPerWords<Math>, shuffle_ + s / kPerWords<Math>, stratum);
    words(s, k, w);
    for (int part = 0; part < kPerWords<Math> && s + 4 * part < n; ++part) {
      for (int j = 0; j < 4; ++j) {
        e[4 * part + j] = exponential<Math>(numbers<Math>(w[j], part), numbers<Math>(stratum[j], part), strata.width);
      }
    }
  }
};
