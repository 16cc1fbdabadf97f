// What a kernel is asked to do: plain pointers and sizes, shared by the kernels (which know vectors) and the network
// (which does not). Letters: T steps, B batch rows, I inputs, H hidden units, P outputs (H, or proj_size),
// A accumulators per unit, K depth of a product, L lanes of a vector.
// A "place" is a row's position in the batch ordered by length.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace fastrnn {

// Rows of internal arrays are padded to this many elements (of any type): a whole number of vectors on every ISA, so
// that only arrays of the caller need partial stores.
static constexpr int kPad = 16;
static constexpr int padded(int n) { return (n + kPad - 1) / kPad * kPad; }

static constexpr int kMaxGates = 4;

// A [T, B, n] array of the caller: element (t, b, j) is data[t * step + b * row + j]. Packed, it holds the live rows
// alone, one after the other, longest batch row first: (t, b) is row first[t] + b, `first` being the schedule's.
template <class T>
struct Rows {
  T* data;
  ptrdiff_t step, row;
  bool packed = false;
};

// A state, of the caller or of a pass: a row of values for each batch row.
template <class T>
struct BatchRows {
  T* data;
  ptrdiff_t row;  // elements from one row to the next; 0 where all batch rows share one, of zeros for example
};

// Which rows are alive at which step: always the first places, as these are ordered by length, longest first.
struct Schedule {
  const int32_t* order;   // [B] batch row at a place
  const int32_t* length;  // [B] steps of the row at a place, descending
  const int64_t* first;   // [T+1] number of live rows before step s: (s, place) is row first[s] + place of a tape
  bool reverse;           // step s of a row is time s, or length - 1 - s
};

// The row of (step, place). (static: kernels are compiled for many instruction sets, and none may get another's.)
template <class T>
static inline T* row_at(const Rows<T>& rows, const Schedule& s, int64_t step, int place) {
  const int64_t time = s.reverse ? s.length[place] - 1 - step : step;
  return rows.data + (rows.packed ? s.first[time] * rows.row : time * rows.step) + s.order[place] * rows.row;
}

template <class T>
static inline T* row_of(const BatchRows<T>& rows, int32_t batch_row) {
  return rows.data + batch_row * rows.row;
}

// One thread's part of a task: every row_stride-th place of [row_begin, row_end), and of the blocks of units one of
// `unit_parts` equal parts. Threads that split units call `wait` after each step, and after its projection, because
// what follows reads h of all units.
struct Share {
  int row_begin, row_end, row_stride;
  int unit_part, unit_parts;
  void (*wait)(void* barrier);  // null where no thread need wait: it has all units, or the task is one plain step
  void* barrier;
};

// Rows [begin, end) with all their units; part `part` of `parts` of all rows' units, for threads that need not wait.
static inline Share rows_between(int begin, int end) { return {begin, end, 1, 0, 1, nullptr, nullptr}; }
static inline Share units_part(int rows, int part, int parts) { return {0, rows, 1, part, parts, nullptr, nullptr}; }

static inline void meet(const Share& share) {
  if (share.wait) share.wait(share.barrier);
}

// Of a depth, in weights that are pairs of bfloat16.
static constexpr int pairs_of(int depth) { return (depth + 1) / 2; }

// Weights once more, in pairs of bfloat16 (gemm/bf16.h); null where they are not all such.
struct Bf16Weights {
  const uint32_t* w;           // [H/L][(I + 1)/2][gates][L]
  const uint32_t* u;           // [H/L][(P + 1)/2][gates][L]
  const uint32_t* projection;  // [P/L][(H + 1)/2][L]
};

// Weights to be packed (gemm/pack.h): of one of several parts of the blocks of outputs.
template <class T>
struct PackTask {
  const T* w;          // [gates * outputs, depth]; for pack_columns [depth, outputs]
  int gates;           // of pack_gates alone; else 1
  int outputs, depth;  // of a gate
  int part, parts;
  T* packed;         // where all of them are to lie
  bool past_caches;  // which do not hold them: until they are read, all are written
};

template <class T>
struct ForwardTask {
  Schedule schedule;
  int64_t step_begin, step_end;
  bool odd;  // whether an odd number of steps came before step 0: a stream's or pool's steps are a task each
  int input, hidden, output;  // I, H, P
  int pitch;                  // padded(H)
  int near;          // bytes of the first-level cache; 0 where other layers' weights are read between two steps
  Rows<const T> x;   // [T, B, I]
  const T* w;        // packed [H/L][group][I][gates of the group][L] (gemm/pack.h); not read with `hoisted`
  const T* hoisted;  // [steps from step_begin on][hoisted_rows][input gates][pitch] bias + W x, by place, or null
  int64_t hoisted_rows;
  bool handed_over;       // `hoisted` was mostly written by another core, and lies in its cache
  const T* bias;          // [A][pitch]
  const T* u;             // packed [H/L][group][P][gates of the group][L]
  const T* projection;    // packed [P/L][H][L], or null
  Bf16Weights bf16;       // for one row alone
  Rows<T> y;              // [T, B, P]
  BatchRows<const T> h0;  // [B, P] before step 0
  BatchRows<const T> c0;  // [B][whole vectors] before step 0
  BatchRows<T> cell;      // [B][whole vectors] c, carried in place where there is no tape
  T* tape_gates;          // [live rows][saved][pitch], or null
  T* tape_cell;           // [live rows][pitch], or null
  T* unprojected;         // o * tanh(c): [live rows][pitch] with a tape, [B][pitch] without; for a projection alone
};

// Where one row of a forward step finds and leaves its values, each at unit 0.
template <class T>
struct RowStep {
  const T* x;       // [I], or null where `start` has W x already
  const T* h_prev;  // [P]
  const T* start;   // [input gates][pitch] bias, or bias + W x
  const T* c_prev;  // [pitch]
  T* c;             // [pitch]
  T* saved;         // [saved][pitch], or null
  T* h;             // [H] the caller's, or [pitch] where a projection follows
};

// The sums of one step of a few rows by weights that are not packed. H is kPad at least.
template <class T>
struct UnpackedTask {
  int input, hidden, pitch;  // I, H, padded(H)
  const T* w;                // [gates * H, I]
  const T* u;                // [gates * H, H]
  const T* bias;             // [A][pitch]
  int accumulators;
  int input_gate[kMaxGates], hidden_gate[kMaxGates];  // [A] whose rows of w and u they are the sums of; -1: of none
  const RowStep<T>* rows;                             // [count] of which x and h_prev are read
  int count;
  T* sums;  // [count][A][pitch]
};

template <class T>
struct BackwardTask {
  Schedule schedule;
  int64_t step_begin, step_end;  // walked downwards
  int hidden, output;
  int pitch, output_pitch;  // padded(H), padded(P)
  const T* ut;              // packed [P/L][gates * H][L], or null
  const T* projection_t;    // packed [H/L][P][L], or null
  Rows<const T> dy;         // [T, B, P], data null: zero
  Rows<const T> y;          // [T, B, P]
  BatchRows<const T> h0;    // [B, P] before step 0
  BatchRows<const T> c0;    // [B][pitch] before step 0
  const T* tape_gates;      // [live rows][saved][pitch]
  const T* tape_cell;       // [live rows][pitch]
  T* dgates;                // [live rows of the steps, and of step_end][A][pitch]
  T* dprojected;            // [live rows of the steps][output_pitch] dh of the projected h, or null
  T* dstate;                // [B][output_pitch] by place: dh after the row's end; dh before its start when done
  bool to_start;            // whether anybody wants the latter, a product for it as for every step
  T* carry;                 // [B][pitch] by place: what the step before gets beside dgates U (dc, or dh z), or null
};

// out[n] = [out[n] +] bias + in[n] M. Row n of the left side is `segments` runs of `depth` values, run s of them at
// in[n] + segment_offset[s].
template <class T>
struct ProductTask {
  const T* const* in;  // [rows], as many as the share says
  T* const* out;
  int segments, depth;
  const int* segment_offset;
  const T* packed;  // [outputs/L][segments * depth][L]
  const T* bias;    // [padded(outputs)], or null: zero
  int outputs;
  bool add;
  const uint32_t* bf16 = nullptr;  // as in Bf16Weights, of one segment, for one row alone and without `add`
  bool goes_on = false;            // the sums start at out[n], instead of the bias; rows of out are whole vectors
  const T* unpacked = nullptr;     // M where it lies [segments * depth, outputs], instead of `packed`: without bias,
                                   // and of kMostUnpackedRows at most
  T* scratch = nullptr;            // kOuterScratch elements, for that
};

// At most so many rows are multiplied with a matrix that is not packed. Linear 512 on 10,000 with 256, forward and back
// on one thread of Zen 4: 1.04 of the time with all packed before, on two 0.97.
static constexpr int kMostUnpackedRows = 128;

// out[n] = bias + W in[n], all gates of a cell.
template <class T>
struct InputTask {
  const T* const* in;  // [rows] of [depth]
  T* const* out;       // [rows] of [input gates][pitch]
  int depth, hidden, pitch;
  const T* packed;  // [H/L][group][depth][gates of the group][L]
  const T* bias;    // [A][pitch]
};

// One product of an OuterTask: its right side and where its sums go.
template <class T>
struct OuterRight {
  const T* const* b;  // [rows] of [columns]
  int columns;
  T* c;  // [gates * hidden, columns]
};

// c[m][j] = [c[m][j] +] sum over n of a[n][column(m)] * b[n][j],
// for m in [row_begin, row_end), and for all right sides.
template <class T>
struct OuterTask {
  const T* a;
  ptrdiff_t a_step;
  const int* gate_column;  // column(m) = gate_column[m / hidden] + m % hidden
  int hidden;
  int row_begin, row_end;
  int rows;
  const OuterRight<T>* right;  // [rights]
  int rights;
  bool add;
  size_t bytes;  // of all gradients that the threads write, if nothing is added to them later
  T* scratch;    // kOuterScratch elements
};

// A step of SGD, on arrays of equal length.
template <class T>
struct SgdTask {
  T* weight;
  const T* grad;
  T* velocity;  // null without momentum
  T rate, momentum, undamped, decay;
  bool nesterov, first;  // first: velocity has no value yet
};

// A step of Adam or AdamW, on arrays of equal length.
template <class T>
struct AdamTask {
  T* weight;
  const T* grad;
  T *mean, *square;
  T first, rest_first, second, rest_second;  // b1, 1 - b1, b2, 1 - b2
  T correction, eps, rate;                   // sqrt(1 - b2^t), eps, lr / (1 - b1^t)
  T decay, shrink;                           // added to the gradient times w; 1, or what w is multiplied by
};

// Sums over T * B run in fixed blocks of this many rows, whatever the threads and the vectors: part of the promise of
// equal bits.
static constexpr int kSumBlock = 256;
static constexpr int kOuterColumns = 32;  // a panel of b has no more on any ISA
// Columns of a that are multiplied with all of b before the next: whole groups on every ISA, and few enough for the
// second-level cache. LSTM H512, Emerald Rapids (2 MB): 150 GFLOP/s, with twice as many 142.
template <class T>
static constexpr int kOuterRows = sizeof(T) == sizeof(float) ? 516 : 384;
// A panel of b, and groups of at most kPad columns of a, of which each gate may end in one that is not full.
template <class T>
static constexpr size_t kOuterScratch =
    size_t(kSumBlock + kPad) * size_t(kOuterColumns + kOuterRows<T> + kMaxGates * kPad);

}  // namespace fastrnn
