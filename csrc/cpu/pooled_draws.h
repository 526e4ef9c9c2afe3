// The Row of pooled.h: short rows, whose draws' gradients are added up row by row as they lie in memory, and only the
// sums become one row a lane.
// Included inside the namespace of an instruction set.

template <class Scalar>
struct PooledDraws : LaneRows<Scalar> {
  using Base = LaneRows<Scalar>;
  using T = Scalar;
  using Base::kLanes;
  using typename Base::I;
  using typename Base::Math;
  using typename Base::V;
  static constexpr int kParts = kShortRow / kLanes;

  // A bundle's rows one after the other, in vectors of neighbouring columns.
  struct ByRow {
    V parts[kLanes][kParts];

    V* operator[](int lane) { return parts[lane]; }
    T& at(int lane, int64_t column) { return reinterpret_cast<T*>(parts[lane])[column]; }
  };

  ByRow weights, shares, unmasked, sums, won;
  alignas(DISCRETE_OPS_BYTES) T converted[kShortRow] = {};  // a row of another type, or of columns apart

  explicit PooledDraws(const Call& call) : Base(call) {}

  void pool() {
    to_rows([&](int s) { return this->a_[s]; }, weights);
    to_rows([&](int s) { return this->c_[s]; }, shares);
    to_rows([&](int s) { return (V)(this->z_[s] != -Math::kInf); }, unmasked);
    sums = won = ByRow{};
    const Operand& grad = this->call.grad;
    if (sizeof(T) == 4 && grad.dtype == Dtype::kFloat && grad.column_stride == 1) {
      const T* const data = static_cast<const T*>(grad.data);
      add_rows(this->n, [&](int64_t row) {
        const T* const v = data + grad.offset(row);
        expect(v + 4 * this->n);  // a few rows on, of the same draw: no processor follows as many as there are draws
        return v;
      });
    } else {
      add_rows(kShortRow, [&](int64_t row) { return convert(row); });
    }
    to_lanes(sums, this->v_);
    to_lanes(won, this->b_);
  }

  // `readable` is how many elements there are of a row, those behind the last column zeros.
  template <class RowOf>
  DISCRETE_OPS_HD void add_rows(int readable, const RowOf& row_of) {
    const T scale = static_cast<T>(this->call.grad_scale);
    for (int lane = 0; lane < this->lanes; ++lane) {
      for (int64_t draw = 0; draw < this->call.draws; ++draw) {
        const int64_t row = draw * this->call.rows + this->first + lane;
        const int64_t index = this->call.index[row], winner = index < 0 ? 0 : index;
        const T* const v = row_of(row);
        const T at_winner = v[winner] * scale, share = shares.at(lane, winner);
        V dot{};
        for (int part = 0; part * kLanes < this->n; ++part) {
          const V x = read(v + part * kLanes, readable - part * kLanes);
          const V deviation = (V)((I)(x * scale - at_winner) & (I)unmasked[lane][part]);
          dot += weights[lane][part] * deviation;
          sums[lane][part] += share * deviation;
        }
        won.at(lane, winner) += share * sum_of_lanes<T>(dot);
      }
    }
  }

  DISCRETE_OPS_HD void expect(const T* row) const {
    for (int s = 0; s < this->n; s += kLanes) __builtin_prefetch(row + s);
  }

  static DISCRETE_OPS_HD V read(const T* from, int readable) {
    if constexpr (sizeof(T) == 4) {
      if (readable < kLanes) return (V)load_partial(from, readable);
    }
    V x;
    __builtin_memcpy(&x, from, sizeof(x));
    return x;
  }

  const T* convert(int64_t row) {
    const Operand& x = this->call.grad;
    read_as<T>(x, [&](const auto* data, auto convert) {
      read_row(data + x.offset(row), x.column_stride, this->n, converted, convert);
    });
    return converted;
  }

  // column(s) of every lane; zeros behind the last.
  template <class Column>
  DISCRETE_OPS_HD void to_rows(const Column& column, ByRow& rows) const {
    for (int part = 0; part * kLanes < this->n; ++part) {
      V block[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        const int s = part * kLanes + i;
        block[i] = s < this->n ? column(s) : V{};
      }
      turn(block);
      for (int lane = 0; lane < kLanes; ++lane) rows[lane][part] = block[lane];
    }
  }

  DISCRETE_OPS_HD void to_lanes(ByRow& rows, V* columns) const {
    for (int part = 0; part * kLanes < this->n; ++part) {
      V block[kLanes];
      for (int lane = 0; lane < kLanes; ++lane) block[lane] = rows[lane][part];
      turn(block);
      for (int i = 0; i < kLanes && part * kLanes + i < this->n; ++i) columns[part * kLanes + i] = block[i];
    }
  }

  static DISCRETE_OPS_HD void turn(V block[kLanes]) {
    if constexpr (sizeof(T) == 4) {
      transpose(reinterpret_cast<Words*>(block));
    } else {
      V turned[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        for (int lane = 0; lane < kLanes; ++lane) turned[i][lane] = block[lane][i];
      }
      for (int i = 0; i < kLanes; ++i) block[i] = turned[i];
    }
  }
};
