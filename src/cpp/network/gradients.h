// What a block of dgates gives: dx, dW, dU, db, and dW of a projection, one product each; and its norms.
#pragma once

#include <algorithm>

#include "network/backward_work.h"
#include "network/norm.h"
#include "network/share.h"
#include "network/states.h"

namespace fastrnn {

// Of one layer. A block of time is a BackwardTask with its dgates filled; the threads of a team share each product.
template <class T>
class LayerGradients {
 public:
  LayerGradients(const Network<T>& net, const Tape<T>& tape, const Gradients<T>& call, int layer, Rows<T> dx,
                 const BackwardWork<T>& work, bool unpacked)
      : net_(net),
        c_(net.config()),
        cell_(net.cell()),
        tape_(tape),
        call_(call),
        layer_(layer),
        dx_(dx),
        pitch_(padded(c_.hidden)),
        work_(work),
        unpacked_(unpacked) {
    for (int d = 0; d < c_.directions(); ++d) initialise(d);
  }

  // dx of the block's rows.
  void input(int d, const BackwardTask<T>& block, const Team& team, int thread) const {
    if (!dx_.data) return;
    const bool second = d == 1 && work_.second_dx.data;
    const Rows<T>& dx = second ? work_.second_dx : dx_;
    const auto out = [&](int64_t step, int place) { return row_at(dx, block.schedule, step, place); };
    const T* const w = unpacked_ ? net_.raw(sweep(d)).ih : net_.weights(sweep(d)).wt;
    multiply(block, cell_.input_gates, w, input_size(), d == 1 && !second, out, team, thread);
  }

  // dh before the only step, by weights where they lie: dgates U, and what the step has carried.
  void initial_state(int d, const BackwardTask<T>& block, const Team& team, int thread) const {
    const DirectionWork<T>& w = work_.directions[d];
    const int lanes = net_.kernels().lanes, pitch = padded(c_.output());
    const Range blocks = part_of((c_.output() + lanes - 1) / lanes, team.rank, team.size);  // those it multiplies
    for (int row = 0; row < tape_.order.batch() && cell_.carries_dh; ++row) {
      const ptrdiff_t begin = ptrdiff_t(row) * pitch + blocks.begin * lanes;
      std::copy_n(w.carry + begin, (blocks.end - blocks.begin) * lanes, w.dstate + begin);
    }
    const auto out = [&](int64_t, int place) { return w.dstate + ptrdiff_t(place) * pitch; };
    multiply(block, cell_.hidden_gates, net_.raw(sweep(d)).hh, c_.output(), cell_.carries_dh, out, team, thread);
  }

  // Of dgates of every live row.
  void norms(int d, const BackwardTask<T>& block, const Team& team) const {
    if (!call_.step_norms) return;
    const Rows<double> to = norms_of(d);
    each_row(block, [&](int n, int64_t step, int place) {
      if (n % team.size != team.rank) return;
      const T* const gates = block.dgates + ptrdiff_t(n) * cell_.accumulators * pitch_;
      *row_at(to, block.schedule, step, place) = norm(gates, pitch_, cell_.input_gates, cell_.gates, c_.hidden);
    });
  }

  // Of all blocks, when all threads are done with them: the second direction's share of dx, and zeros behind the rows'
  // ends.
  void finish_rows(const Team& team) const {
    const Share rows = share_of(Split::rows, tape_.order, team);
    for (int d = 0; call_.step_norms && d < c_.directions(); ++d) clear_past_end(tape_.order, rows, norms_of(d), 1);
    if (!dx_.data) return;
    if (work_.second_dx.data) {
      team.wait();
      add_second_dx(rows);
    }
    clear_past_end(tape_.order, rows, dx_, input_size());
  }

  // Adds the block's part of the weights' gradients.
  void weights(int d, const BackwardTask<T>& block, const Team& team, int thread) const {
    if (!call_.weights) return;
    const ThreadWork<T>& t = work_.threads[thread];
    const RawWeights<T> grads = raw(d);
    const int rows = int(tape_.order.rows(block.step_begin, block.step_end));
    OuterTask<T> outer = {};
    outer.a = block.dgates, outer.a_step = ptrdiff_t(cell_.accumulators) * pitch_, outer.hidden = c_.hidden;
    outer.rows = rows, outer.scratch = t.scratch;
    outer.add = tape_.order.rows(block.step_end, tape_.order.steps()) > 0;  // blocks past every row's end add nothing
    if (block.step_begin == 0)
      outer.bytes = sizeof(T) * size_t(cell_.gates * c_.hidden) * size_t(input_size() + c_.output());
    split(outer, cell_.gates * c_.hidden, team);

    // The sums of the biases first: they bring near what another thread has written,
    // and the products read it next (Emerald Rapids, LSTM T100 B64 H256, two threads,
    // all weight gradients 22.8 ms with these sums behind the products, 22.3 so).
    const Range vectors = part_of(cell_.accumulators * pitch_ / kPad, team.rank, team.size);
    net_.kernels().column_sums(outer.a, outer.a_step, rows, int(vectors.begin) * kPad, int(vectors.end) * kPad,
                               work_.directions[d].bias_sums);

    gates(d, block, outer, t, grads);
    if (c_.projection) projection(d, block, outer, team, t, grads.hr);
  }

  // From their sums, when the threads are done.
  void biases() const {
    if (!call_.weights || !c_.bias) return;
    for (int d = 0; d < c_.directions(); ++d) {
      const T* const sums = work_.directions[d].bias_sums;
      const RawWeights<T> grads = raw(d);
      for (int g = 0; g < cell_.gates; ++g) {
        std::copy_n(sums + cell_.input_gates[g] * pitch_, c_.hidden, grads.bias_ih + ptrdiff_t(g) * c_.hidden);
        std::copy_n(sums + cell_.hidden_gates[g] * pitch_, c_.hidden, grads.bias_hh + ptrdiff_t(g) * c_.hidden);
      }
    }
  }

 private:
  int sweep(int direction) const { return c_.sweep(layer_, direction); }
  int input_size() const { return c_.input_of(layer_); }
  RawWeights<T> raw(int d) const { return raw_weights(c_, call_.weights, sweep(d)); }
  Rows<double> norms_of(int d) const {
    const ptrdiff_t batch = tape_.order.batch();
    return {call_.step_norms + sweep(d) * tape_.order.steps() * batch, batch, 1};
  }

  // out(step, place) = [out +] dgates M for the live rows of the block, `gates` the accumulators of M's. Threads have a
  // part of the rows each, or of the columns of weights that lie where they are.
  template <class Out>
  void multiply(const BackwardTask<T>& block, const int* gates, const T* matrix, int outputs, bool add, Out out,
                const Team& team, int thread) const {
    const ThreadWork<T>& t = work_.threads[thread];
    int rows = 0;
    each_row(block, [&](int n, int64_t step, int place) {
      t.left[n] = block.dgates + ptrdiff_t(n) * cell_.accumulators * pitch_, t.right[n] = out(step, place);
      rows = n + 1;
    });
    int offsets[kMaxGates];
    for (int g = 0; g < cell_.gates; ++g) offsets[g] = gates[g] * pitch_;
    ProductTask<T> product = {t.left, t.right, cell_.gates, c_.hidden, offsets, nullptr, nullptr, outputs, add};
    (unpacked_ ? product.unpacked : product.packed) = matrix, product.scratch = t.scratch;
    const Range mine = part_of(rows, team.rank, team.size);
    net_.kernels().product(
        product, unpacked_ ? units_part(rows, team.rank, team.size) : rows_between(int(mine.begin), int(mine.end)));
  }

  void initialise(int d) const {
    std::fill_n(work_.directions[d].bias_sums, cell_.accumulators * pitch_, T(0));
    if (tape_.order.rows() > 0 || !call_.weights) return;
    const RawWeights<T> grads = raw(d);
    std::fill_n(grads.ih, ptrdiff_t(cell_.gates) * c_.hidden * input_size(), T(0));
    std::fill_n(grads.hh, ptrdiff_t(cell_.gates) * c_.hidden * c_.output(), T(0));
    if (c_.projection) std::fill_n(grads.hr, ptrdiff_t(c_.projection) * c_.hidden, T(0));
  }

  // dW and dU.
  void gates(int d, const BackwardTask<T>& block, OuterTask<T> outer, const ThreadWork<T>& t,
             const RawWeights<T>& grads) const {
    const Trace<T>& trace = tape_.sweeps[size_t(sweep(d))];
    each_row(block, [&](int n, int64_t step, int place) {
      t.left[n] = row_at(tape_.layers[size_t(layer_)].input, block.schedule, step, place);
      t.before[n] = step ? row_at(block.y, block.schedule, step - 1, place) : row_of(trace.h0, tape_.order.row(place));
    });
    const OuterRight<T> right[] = {{t.left, input_size(), grads.ih}, {t.before, c_.output(), grads.hh}};
    int columns[2][kMaxGates];
    for (int g = 0; g < cell_.gates; ++g) {
      columns[0][g] = cell_.input_gates[g] * pitch_, columns[1][g] = cell_.hidden_gates[g] * pitch_;
    }
    // Where both products read the same columns (GRU's do not: its n has two sums)
    // these are copied once. Training LSTM on Zen 5, old and new in turn: B16 H128
    // 3,660 to 3,600 us; B64 H256 on one thread 86.5 to 85.3 ms, on two nothing.
    outer.rights = std::equal(columns[0], columns[0] + cell_.gates, columns[1]) ? 2 : 1;
    for (int i = 0; i < 2; i += outer.rights) {
      outer.gate_column = columns[i], outer.right = right + i;
      net_.kernels().outer(outer);
    }
  }

  void projection(int d, const BackwardTask<T>& block, OuterTask<T> outer, const Team& team, const ThreadWork<T>& t,
                  T* to) const {
    const T* const from = tape_.sweeps[size_t(sweep(d))].unprojected + block.schedule.first[block.step_begin] * pitch_;
    for (ptrdiff_t n = 0; n < outer.rows; ++n) t.left[n] = from + n * pitch_;
    const OuterRight<T> unprojected = {t.left, c_.hidden, to};
    const int column = 0;
    outer.a = block.dprojected, outer.a_step = padded(c_.output()), outer.hidden = c_.projection;
    outer.gate_column = &column, outer.right = &unprojected, outer.rights = 1;
    split(outer, c_.projection, team);
    net_.kernels().outer(outer);
  }

  static void split(OuterTask<T>& outer, int m, const Team& team) {
    const Range mine = part_of(m, team.rank, team.size);
    outer.row_begin = int(mine.begin), outer.row_end = int(mine.end);
  }

  // visit(n, step, place) for the n-th live row of the block.
  template <class Visit>
  void each_row(const BackwardTask<T>& block, Visit visit) const {
    int n = 0;
    for (int64_t step = block.step_begin; step < block.step_end; ++step) {
      const int live = int(tape_.order.rows(step, step + 1));
      for (int place = 0; place < live; ++place) visit(n++, step, place);
    }
  }

  void add_second_dx(const Share& share) const {
    const Schedule s = tape_.order.schedule(false);
    each_own_row(tape_.order, share, [&](int, int place) {
      for (int64_t step = 0; step < tape_.order.length(place); ++step) {
        T* const out = row_at(dx_, s, step, place);
        const T* const more = row_at(work_.second_dx, s, step, place);
        for (int j = 0; j < input_size(); ++j) out[j] += more[j];
      }
    });
  }

  const Network<T>& net_;
  const Config& c_;
  const CellKernels<T>& cell_;
  const Tape<T>& tape_;
  const Gradients<T>& call_;
  const int layer_;
  const Rows<T> dx_;
  const int pitch_;
  const BackwardWork<T>& work_;
  const bool unpacked_;  // weights are read where they lie, of packed ones nothing: another thread may be packing
};

}  // namespace fastrnn
