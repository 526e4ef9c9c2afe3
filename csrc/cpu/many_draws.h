// The Rows of one draw a row, and of several, whose pull-backs are added up: a loop over the draws of loaded rows ends
// with adds_another().
// Included inside the namespace of an instruction set.

template <class Row>
struct OneDraw : Row {
  using Row::Row;

  static constexpr bool take_next_draw() { return false; }
  static constexpr bool adds_another() { return false; }
};

template <class Row>
struct ManyDraws : Row {
  using V = typename Row::V;

  const bool sums_first = forgets_draw(this->call.spec.estimator);  // gradients, for one pull-back
  const bool overwrites = this->call.spec.estimator == kMVE;        // out and z, so that slots have the sum and z
  const int64_t steps = this->count();
  Scratch<V> kept_;  // what no draw of a row changes: two slots of steps
  bool is_kept = false;

  explicit ManyDraws(const Call& call) : Row(call) { kept_.of(2 * steps); }

  template <class Step>
  DISCRETE_OPS_HD V& slot(int number, Step s) {
    return kept_.data[number * steps + s];
  }

  template <class Make>
  DISCRETE_OPS_HD void keep(int number, const Make& make) {
    if (!is_kept) this->each([&](auto s) { slot(number, s) = make(s); });
  }
  template <class Step, class Make>
  DISCRETE_OPS_HD V kept(int number, Step s, const Make&) {
    return slot(number, s);
  }

  bool load(int64_t row) {
    Row::load(row);
    is_kept = false;
    if (overwrites) this->each([&](auto s) { slot(0, s) = this->z(s), slot(1, s) = V{}; });
    return true;  // these are not ragged
  }

  void load_grad() {
    load_one_grad();
    if (!sums_first) return;
    this->each([&](auto s) { this->a(s) = this->v(s); });
    while (this->take_next_draw()) {
      load_one_grad();
      this->each([&](auto s) { this->a(s) += this->v(s); });
    }
    this->each([&](auto s) { this->v(s) = this->a(s); });
    this->take_first_draw();
  }

  void load_one_grad() {
    Row::load_grad();
    if (this->draw + 1 < this->call.draws) this->expect_grad(this->call.rows);
  }

  bool adds_another() {
    is_kept = true;
    if (overwrites) this->each([&](auto s) { slot(1, s) += this->out(s), this->z(s) = slot(0, s); });
    if (!sums_first && this->take_next_draw()) return true;
    if (overwrites) this->each([&](auto s) { this->out(s) = slot(1, s); });
    this->take_first_draw();
    return false;
  }
};
