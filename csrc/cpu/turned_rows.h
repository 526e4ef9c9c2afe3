// Rows of tensors side by side in SIMD lanes: each lane is one row, each step one column.
// Included inside the namespace of an instruction set.

template <class Scalar, Rows kRows>
struct TurnedRows : RowLength<kRows> {
  using Math = discrete_ops::DISCRETE_OPS_ISA::Math<Scalar>;
  using T = Scalar;
  using V = typename Math::V;
  using I = typename Math::I;
  static constexpr bool kRagged = kRows == Rows::kRagged;
  static constexpr int kLanes = Math::kLanes;
  using RowLength<kRows>::n;

  const Call& call;
  int64_t first = 0;  // row of lane 0, as draws count them
  int lanes = 0;      // rows in this bundle

  explicit TurnedRows(const Call& call) : RowLength<kRows>(call), call(call) {}

  // --- which rows -------------------------------------------------------------------------------------------------

  int64_t row_of(int lane) const {
    if constexpr (kRagged) {
      return this->numbers[lane];
    } else {
      return first + lane;
    }
  }
  int length_of(int lane) const {
    if constexpr (kRagged) {
      return this->columns[lane];
    } else {
      return n;
    }
  }
  // Where its row begins in a tensor's data.
  int64_t begin_of(int lane, const Operand& x) const {
    if constexpr (kRagged) {
      return this->begins[lane] * x.column_stride;
    } else {
      return x.offset(lane < lanes ? first + lane : first);
    }
  }

  // As many rows as lanes, of enough columns to be taken a few at a time, as 128 bits hold.
  static constexpr int kAtOnce = 16 / sizeof(T);
  bool is_full() const { return !kRagged && lanes == kLanes && n >= kAtOnce; }

  // Columns of its row from s on, at most as many as a vector has.
  int rest_of(int lane, int s) const {
    const int rest = length_of(lane) - s;
    return kRagged && rest < 0 ? 0 : rest < kLanes ? rest : kLanes;
  }

  // --- rows to lanes ----------------------------------------------------------------------------------------------

  // rows[s] = f(column s); f may be called twice of one. Of ragged rows with -inf behind each one's end.
  template <class F>
  DISCRETE_OPS_HD void transpose_in(const Operand& x, V* rows, const F& f) const {
    alignas(DISCRETE_OPS_BYTES) T copies[kLanes * kShortRow];  // of rows of another type, or of columns apart
    const bool is_copied = x.dtype != Math::kDtype || x.column_stride != 1;
    if (is_copied) copy_in(x, copies);
    if (is_full() && (is_copied || x.dims <= 1)) {
      const int64_t stride = is_copied ? n : x.dims ? x.strides[0] : 0;
      return full_in(is_copied ? copies : static_cast<const T*>(x.data) + first * stride, stride, rows, f);
    }
    part_in(x, is_copied ? copies : nullptr, rows);
    for (int s = 0; s < n; ++s) rows[s] = f(rows[s]);
  }

  // The rows as T, n elements apart.
  void copy_in(const Operand& x, T* to) const {
    read_as<T>(x, [&](const auto* data, auto convert) {
      if (!kRagged && x.column_stride == 1 && x.dims == 1 && x.strides[0] == n) {
        return read_row(data + first * n, 1, lanes * n, to, convert);  // as one
      }
      for (int lane = 0; lane < lanes; ++lane) {
        read_row(data + begin_of(lane, x), x.column_stride, length_of(lane), to + lane * n, convert);
      }
    });
  }

  template <class F>
  DISCRETE_OPS_HD void full_in(const T* from, int64_t stride, V* rows, const F& f) const {
    for (int64_t s = 0; s < n; s += kAtOnce) {
      const int64_t begin = s + kAtOnce <= n ? s : n - kAtOnce;  // the last ones
      typename Math::U columns[kAtOnce];
      load_columns(from + begin, stride, columns);
      for (int i = 0; i < kAtOnce; ++i) rows[begin + i] = f((V)columns[i]);
    }
  }

  // Also of fewer rows, of ragged ones, and of those that are not one stride apart.
  void part_in(const Operand& x, const T* copies, V* rows) const {
    const T *const data = static_cast<const T*>(x.data), *from[kLanes];
    if (copies || (!kRagged && x.dims <= 1)) {
      const int64_t stride = copies ? n : x.dims ? x.strides[0] : 0;
      const T* const begin = copies ? copies : data + first * stride;
      for (int lane = 0; lane < kLanes; ++lane) from[lane] = begin + (lane < lanes ? lane : 0) * stride;
    } else {
      for (int lane = 0; lane < kLanes; ++lane) from[lane] = data + begin_of(lane, x);
    }
    if constexpr (sizeof(T) == 4) {
      for (int s = 0; s < n; s += kLanes) {
        Words block[kFloatLanes];
        for (int lane = 0; lane < kLanes; ++lane) block[lane] = load_partial(from[lane] + s, rest_of(lane, s));
        transpose(block);
        for (int i = 0; i < kLanes && s + i < n; ++i) rows[s + i] = (V)block[i];
      }
    } else {
      for (int lane = 0; lane < kLanes; ++lane) {
        for (int s = 0; s < length_of(lane); ++s) rows[s][lane] = from[lane][s];
      }
    }
    if constexpr (kRagged) {
      I columns;
      for (int lane = 0; lane < kLanes; ++lane) columns[lane] = length_of(lane);
      for (int s = 0; s < n; ++s) rows[s] = Math::select(columns > s, rows[s], Math::set(-Math::kInf));
    }
  }

  // --- lanes to rows ----------------------------------------------------------------------------------------------

  // Those of `out`, scaled.
  void transpose_out(const V* rows, V scale) const {
    alignas(DISCRETE_OPS_BYTES) T copies[kLanes * kShortRow];
    const bool is_copied = call.out.dtype != Math::kDtype;
    T* const data = static_cast<T*>(call.out.data);
    if (is_full()) {
      full_out(rows, scale, is_copied ? copies : data + first * n);
    } else if (!kRagged || is_copied) {
      T* const begin = is_copied ? copies : data + first * n;
      part_out(rows, scale, [=](int lane) { return begin + lane * n; });
    } else {
      part_out(rows, scale, [=](int lane) { return data + begin_of(lane, call.out); });
    }
    if (is_copied) copy_out(copies);
  }

  void full_out(const V* rows, V scale, T* to) const {
    for (int64_t s = 0; s < n; s += kAtOnce) {
      const int64_t begin = s + kAtOnce <= n ? s : n - kAtOnce;  // the last ones
      typename Math::U columns[kAtOnce];
      for (int i = 0; i < kAtOnce; ++i) columns[i] = (typename Math::U)(rows[begin + i] * scale);
      store_columns(to + begin, n, columns);
    }
  }

  template <class To>
  void part_out(const V* rows, V scale, const To& to) const {
    if constexpr (sizeof(T) == 4) {
      for (int s = 0; s < n; s += kLanes) {
        Words block[kFloatLanes];
        for (int i = 0; i < kLanes; ++i) block[i] = s + i < n ? (Words)(rows[s + i] * scale) : Words{};
        transpose(block);
        const int count = rest_of(0, s);
        for (int lane = 0; lane < lanes; ++lane) {
          store_partial(to(lane) + s, block[lane], kRagged ? rest_of(lane, s) : count);
        }
      }
    } else {
      for (int s = 0; s < n; ++s) {
        const V row = rows[s] * scale;
        for (int lane = 0; lane < lanes; ++lane) {
          if (s < length_of(lane)) to(lane)[s] = row[lane];
        }
      }
    }
  }

  void copy_out(const T* from) const {
    write_as<T>(call.out, [&](auto* data, auto convert) {
      if constexpr (kRagged) {
        for (int lane = 0; lane < lanes; ++lane) {
          write_row(from + lane * n, T(1), length_of(lane), data + begin_of(lane, call.out), convert);
        }
      } else {
        write_row(from, T(1), lanes * n, data + first * n, convert);
      }
    });
  }

  // --- one element a lane -----------------------------------------------------------------------------------------

  V read_variables(const Operand& x) const {
    V values;
    T* to = reinterpret_cast<T*>(&values);
    read_as<T>(x, [&](const auto* data, auto convert) {
      if (x.dims <= 1 && lanes == kLanes) {
        const int64_t stride = x.dims ? x.strides[0] : 0;
        read_row(data + first * stride, stride, kLanes, to, convert);
      } else {
        for (int lane = 0; lane < kLanes; ++lane)
          to[lane] = convert(data[x.offset(lane < lanes ? first + lane : first)]);
      }
    });
    return values;
  }

  void write_variables(V values) const {
    const T* from = reinterpret_cast<const T*>(&values);
    write_as<T>(call.out, [&](auto* data, auto convert) {
      if (lanes == kLanes) {
        write_row(from, T(1), kLanes, data + first, convert);
      } else {
        write_row(from, T(1), lanes, data + first, convert);
      }
    });
  }
};
