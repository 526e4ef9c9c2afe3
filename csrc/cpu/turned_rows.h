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

  // --- rows to lanes ----------------------------------------------------------------------------------------------

  // rows[s] = f(column s); f may be called twice of one. Of ragged rows with -inf behind each one's end.
  template <class F>
  void transpose_in(const Operand& x, V* rows, const F& f) const {
    bool in_floats = false;
    if constexpr (sizeof(T) == 4) {
      in_floats = x.dtype == Dtype::kFloat && x.column_stride == 1;
      if (in_floats && !kRagged && x.dims <= 1 && lanes == kLanes && n >= 4) return even_floats_in(x, rows, f);
      if (in_floats) transpose_floats_in(x, rows);
    }
    if (!in_floats) convert_in(x, rows);
    for (int s = 0; s < n; ++s) rows[s] = f(rows[s]);
  }

  template <class F>
  void even_floats_in(const Operand& x, V* rows, const F& f) const {
    const int64_t stride = x.dims ? x.strides[0] : 0;
    const float* const data = static_cast<const float*>(x.data) + first * stride;
    for (int s = 0; s < n; s += 4) {
      const int begin = s + 4 <= n ? s : n - 4;  // the last four
      Words columns[4];
      load_columns(data + begin, stride, columns);
      for (int i = 0; i < 4; ++i) rows[begin + i] = f((V)columns[i]);
    }
  }

  void convert_in(const Operand& x, V* rows) const {
    T* to = reinterpret_cast<T*>(rows);
    read_as<T>(x, [&](const auto* data, auto convert) {
      for (int lane = 0; lane < kLanes; ++lane) {
        const auto* from = data + begin_of(lane, x);
        const int64_t stride = x.column_stride;
        const int end = length_of(lane);
        for (int s = 0; s < end; ++s) to[s * kLanes + lane] = convert(from[s * stride]);
        for (int s = end; s < n; ++s) to[s * kLanes + lane] = -Math::kInf;
      }
    });
  }

  void transpose_floats_in(const Operand& x, V* rows) const {
    const float *const data = static_cast<const float*>(x.data), *from[kLanes];
    if (!kRagged && x.dims <= 1) {  // rows one stride apart
      const int64_t stride = x.dims ? x.strides[0] : 0;
      for (int lane = 0; lane < kLanes; ++lane) from[lane] = data + (lane < lanes ? first + lane : first) * stride;
    } else {
      for (int lane = 0; lane < kLanes; ++lane) from[lane] = data + begin_of(lane, x);
    }
    for (int s = 0; s < n; s += kLanes) {
      Words block[kFloatLanes];
      for (int lane = 0; lane < kLanes; ++lane) block[lane] = load_partial(from[lane] + s, rest_of(lane, s));
      transpose(block);
      for (int i = 0; i < kLanes && s + i < n; ++i) rows[s + i] = (V)block[i];
    }
    if constexpr (kRagged) {
      I columns;
      for (int lane = 0; lane < kLanes; ++lane) columns[lane] = length_of(lane);
      for (int s = 0; s < n; ++s) rows[s] = Math::select(columns > s, rows[s], Math::set(-Math::kInf));
    }
  }

  // Columns of its row from s on, at most as many as a vector has.
  int rest_of(int lane, int s) const {
    const int rest = length_of(lane) - s;
    return kRagged && rest < 0 ? 0 : rest < kLanes ? rest : kLanes;
  }

  // --- lanes to rows ----------------------------------------------------------------------------------------------

  // Those of `out`, scaled.
  void transpose_out(const V* rows, V scale) const {
    if constexpr (sizeof(T) == 4) {
      if (call.out.dtype == Dtype::kFloat) return transpose_floats_out(rows, scale);
    }
    convert_out(rows, scale);
  }

  void transpose_floats_out(const V* rows, V scale) const {
    float *const all = static_cast<float*>(call.out.data), *const to = all + first * call.columns;
    if (!kRagged && lanes == kLanes && n >= 4) {
      for (int s = 0; s < n; s += 4) {
        const int begin = s + 4 <= n ? s : n - 4;  // the last four
        Words columns[4];
        for (int i = 0; i < 4; ++i) columns[i] = (Words)(rows[begin + i] * scale);
        store_columns(to + begin, n, columns);
      }
      return;
    }
    for (int s = 0; s < n; s += kLanes) {
      const int count = n - s < kLanes ? n - s : kLanes;
      Words block[kFloatLanes];
      for (int i = 0; i < kLanes; ++i) block[i] = i < count ? (Words)(rows[s + i] * scale) : Words{};
      transpose(block);
      for (int lane = 0; lane < lanes; ++lane) {
        if constexpr (kRagged) {
          store_partial(all + this->begins[lane] + s, block[lane], rest_of(lane, s));
        } else {
          store_partial(to + lane * call.columns + s, block[lane], count);
        }
      }
    }
  }

  void convert_out(const V* rows, V scale) const {
    V scaled[kShortRow];
    for (int s = 0; s < n; ++s) scaled[s] = rows[s] * scale;
    const T* from = reinterpret_cast<const T*>(scaled);
    write_as<T>(call.out, [&](auto* data, auto convert) {
      for (int lane = 0; lane < lanes; ++lane) {
        auto* to = data + begin_of(lane, call.out);
        for (int s = 0; s < length_of(lane); ++s) to[s] = convert(from[s * kLanes + lane]);
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
        const auto* from = data + first * stride;
        if (stride == 1) {
          for (int lane = 0; lane < kLanes; ++lane) to[lane] = convert(from[lane]);
        } else {
          for (int lane = 0; lane < kLanes; ++lane) to[lane] = convert(from[lane * stride]);
        }
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
      auto* to = data + first;
      if (lanes == kLanes) {
        for (int lane = 0; lane < kLanes; ++lane) to[lane] = convert(from[lane]);
      } else {
        for (int lane = 0; lane < lanes; ++lane) to[lane] = convert(from[lane]);
      }
    });
  }
};
