// The Rows of one sample a row, and of several, whose pull-backs are added up.
// Included inside the namespace of an instruction set.

template <class Row>
struct OneDraw : Row {
  using Row::Row;

  template <class F>
  DISCRETE_OPS_HD void each_draw(const F& f) {
    f();
  }
};

template <class Row>
struct ManyDraws : Row {
  using V = typename Row::V;
  static constexpr int kSlots = 2;

  Scratch<V> kept_;  // what no draw of a row changes: slots, of steps
  int64_t steps_ = 0;
  bool is_kept = false;

  using Row::Row;

  template <class Step>
  DISCRETE_OPS_HD V& kept_at(int slot, Step s) {
    return kept_.data[slot * steps_ + s];
  }

  template <class Step, class Make>
  DISCRETE_OPS_HD V kept(int slot, Step s, const Make& make) {
    if (is_kept) return kept_at(slot, s);
    return kept_at(slot, s) = make();
  }

  // f() for the draws of the loaded rows; it adds to out.
  template <class F>
  void each_draw(const F& f) {
    const Problem& call = this->call;
    steps_ = this->count();
    kept_.of(kSlots * steps_);
    is_kept = false;
    if (forgets_draw(call.spec.estimator)) return f();  // of the sum, which load_grad() gives
    const bool overwrites = call.spec.estimator == kMVE;  // out, and z
    if (overwrites) this->each([&](auto s) { kept_at(0, s) = this->z(s), kept_at(1, s) = V{}; });
    for (int64_t draw = 0; draw < call.draws; ++draw) {
      this->take_draw(draw);
      f();
      is_kept = true;
      if (overwrites) this->each([&](auto s) { this->z(s) = kept_at(0, s), kept_at(1, s) += this->out(s); });
    }
    if (overwrites) this->each([&](auto s) { this->out(s) = kept_at(1, s); });
    this->take_draw(0);
  }

  void load_grad() {
    Row::load_grad();
    const Problem& call = this->call;
    if (!forgets_draw(call.spec.estimator)) return;
    for (int64_t draw = 1; draw < call.draws; ++draw) {
      this->each([&](auto s) { this->a(s) = this->v(s); });
      this->take_draw(draw);
      Row::load_grad();
      this->each([&](auto s) { this->v(s) += this->a(s); });
    }
    this->take_draw(0);
  }
};
