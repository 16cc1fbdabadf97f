/* fastrnn for C and for languages that call C: recurrent layers (RNN, LSTM, GRU) on CPUs.
 *
 * The binary interface of the library: fastrnn.hpp is a layer of C++17 over it, without code of its own. docs/cpp.md is
 * the tour.
 *
 * Letters: T steps, B batch rows, I inputs, H hidden units, P outputs of a direction (proj_size, or H), L layers,
 * D directions (1, or 2). Arrays are of the dtype of the handle they are used with, float or double; the last axis is
 * contiguous. Weights have torch's names, shapes and gate orders.
 *
 * Errors. A function that can fail returns a fastrnn_status, FASTRNN_OK being 0, and writes the reason to `error`,
 * unless that is NULL: the argument's name, what was expected, what came. Nothing is changed then, no handle is made,
 * and that which was to be made, `*out`, is NULL. No exception and no signal leaves the library; an allocation that
 * fails is FASTRNN_OUT_OF_MEMORY. (An OpenMP run-time that cannot start a thread ends the process: ask for one thread
 * where that must not be.) Sizes and names are checked; that a pointer reaches as much memory as the sizes say is for
 * the caller.
 *
 * Threads. A handle is changed by one thread at a time. What takes a const handle may run in several threads at once.
 * Different handles are independent of each other, also two streams or pools of one layer.
 *
 * Alignment: of every array, the element's own (4 or 8 bytes). More gains nothing that was measured.
 *
 * Real time. Functions marked FASTRNN_NONBLOCKING take no memory, no lock and no system call, start and wake no
 * thread, and do the same amount of work at each call, whatever the values (denormals are taken as zero within them),
 * provided that their stream or pool was made with one thread. Clang 20 and newer know the mark as
 * [[clang::nonblocking]].
 */
#ifndef FASTRNN_FASTRNN_H
#define FASTRNN_FASTRNN_H

#include <fastrnn/macros.h>
#include <fastrnn/version.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__cplusplus)
extern "C" {
#endif

/* --------------------------------------------------------------------------------------------------------- errors */

typedef int32_t fastrnn_status;
enum {
  FASTRNN_OK = 0,
  FASTRNN_INVALID_ARGUMENT = 1, /* a value, shape, name or pointer that cannot be meant */
  FASTRNN_OUT_OF_MEMORY = 2,
  FASTRNN_IO = 3,        /* the operating system could not open, read or write a file */
  FASTRNN_FORMAT = 4,    /* a file is not what it should be */
  FASTRNN_NOT_READY = 5, /* a layer with weights missing, or changed since fastrnn_layer_prepare */
  FASTRNN_INTERNAL = 6,  /* a bug: please report it */
  FASTRNN_FULL = 7       /* a pool whose capacity is used up */
};

/* Never grows. */
typedef struct fastrnn_error {
  fastrnn_status status;
  char message[508]; /* UTF-8, ends with a zero; empty with FASTRNN_OK */
} fastrnn_error;

/* "invalid argument", ...; static. */
FASTRNN_API const char* fastrnn_status_name(fastrnn_status status) FASTRNN_NOEXCEPT;

/* ----------------------------------------------------------------------------------------------------------- build */

/* FASTRNN_VERSION and FASTRNN_ABI of the library that runs; those of the header are the macros. */
FASTRNN_API const char* fastrnn_version(void) FASTRNN_NOEXCEPT;
FASTRNN_API int32_t fastrnn_abi(void) FASTRNN_NOEXCEPT;
/* The kernels new layers will use ("avx512", ...): the best for this CPU, or those the environment variable FASTRNN_ISA
 * names; NULL when it names none that can be used here. */
FASTRNN_API const char* fastrnn_isa(void) FASTRNN_NOEXCEPT;
/* Cores this process may use, by its affinity and its quota of time; 1 in a build without OpenMP. */
FASTRNN_API int32_t fastrnn_available_threads(void) FASTRNN_NOEXCEPT;

/* ---------------------------------------------------------------------------------------------------- architectures */

enum { FASTRNN_FLOAT32 = 0, FASTRNN_FLOAT64 = 1 };
enum { FASTRNN_RNN_TANH = 0, FASTRNN_RNN_RELU = 1, FASTRNN_LSTM = 2, FASTRNN_GRU = 3 };

/* torch's arguments. Sizes are from 1 to 1048576. */
typedef struct fastrnn_config {
  size_t size;   /* sizeof(fastrnn_config) */
  int32_t cell;  /* FASTRNN_LSTM, ... */
  int32_t dtype; /* FASTRNN_FLOAT32 or FASTRNN_FLOAT64 */
  int32_t input_size, hidden_size, num_layers;
  int32_t bias, bidirectional; /* 0 or 1 */
  int32_t proj_size;           /* LSTM alone, below hidden_size; 0: none */
} fastrnn_config;

/* Fills `config` with an LSTM of float32: 1 input, 1 unit, 1 layer, bias, one direction, no projection. Writes the
 * fields up to proj_size, and a size that ends there, also where a later version has more: then set those and size. */
FASTRNN_API void fastrnn_config_default(fastrnn_config* config) FASTRNN_NOEXCEPT;

/* A named array; never grows. `name` and `data` belong to the handle that it was asked of. */
typedef struct fastrnn_tensor {
  const char* name;
  const char* dtype; /* as in safetensors: "F32", "F64", "BF16", ... */
  const void* data;  /* C order; of a file, perhaps not aligned for its dtype */
  size_t bytes;
  const int64_t* shape; /* [rank] */
  int32_t rank;
} fastrnn_tensor;

/* ------------------------------------------------------------------------------------------------ weights on disk */

/* A safetensors file in memory. Nothing of it is trusted: any bytes give a handle or an error. */
typedef struct fastrnn_weights fastrnn_weights;

/* Reads the whole file. path: UTF-8. */
FASTRNN_API fastrnn_status fastrnn_weights_open(const char* path, fastrnn_weights** out,
                                                fastrnn_error* error) FASTRNN_NOEXCEPT;
/* The same from the bytes of a file, for instance linked into the program; copied. */
FASTRNN_API fastrnn_status fastrnn_weights_parse(const void* data, size_t bytes, fastrnn_weights** out,
                                                 fastrnn_error* error) FASTRNN_NOEXCEPT;
/* NULL is fine, here and in the other functions that free. */
FASTRNN_API void fastrnn_weights_free(fastrnn_weights* weights) FASTRNN_NOEXCEPT;
FASTRNN_API size_t fastrnn_weights_count(const fastrnn_weights* weights) FASTRNN_NOEXCEPT;
/* Tensors in the order of their bytes; index < count. */
FASTRNN_API fastrnn_status fastrnn_weights_at(const fastrnn_weights* weights, size_t index, fastrnn_tensor* out,
                                              fastrnn_error* error) FASTRNN_NOEXCEPT;
FASTRNN_API fastrnn_status fastrnn_weights_find(const fastrnn_weights* weights, const char* name, fastrnn_tensor* out,
                                                fastrnn_error* error) FASTRNN_NOEXCEPT;
/* The value of a key of the file's __metadata__, or NULL. Belongs to `weights`. */
FASTRNN_API const char* fastrnn_weights_metadata(const fastrnn_weights* weights, const char* key) FASTRNN_NOEXCEPT;
/* The recurrent layer that fastrnn wrote with this prefix: "" for layer.save(), "lstm." for a module of fastrnn.save().
 * FASTRNN_FORMAT when the file does not say: then give the architecture yourself. `config->size` must be set. */
FASTRNN_API fastrnn_status fastrnn_weights_config(const fastrnn_weights* weights, const char* prefix,
                                                  fastrnn_config* config, fastrnn_error* error) FASTRNN_NOEXCEPT;

/* ------------------------------------------------------------------------------------------------ recurrent layers */

typedef struct fastrnn_layer fastrnn_layer;

/* A layer whose weights are all missing. It owns their memory. */
FASTRNN_API fastrnn_status fastrnn_layer_create(const fastrnn_config* config, fastrnn_layer** out,
                                                fastrnn_error* error) FASTRNN_NOEXCEPT;
/* fastrnn_weights_config, create, assign and prepare (on one thread) in one. A file of another dtype than the one asked
 * for is FASTRNN_FORMAT; F16 and BF16 count as F32, which holds them exactly. */
FASTRNN_API fastrnn_status fastrnn_layer_load(const fastrnn_weights* weights, const char* prefix, int32_t dtype,
                                              fastrnn_layer** out, fastrnn_error* error) FASTRNN_NOEXCEPT;
/* Streams and pools made of it stay usable; tapes do not. */
FASTRNN_API void fastrnn_layer_free(fastrnn_layer* layer) FASTRNN_NOEXCEPT;
/* `config->size` must be set. */
FASTRNN_API fastrnn_status fastrnn_layer_config(const fastrnn_layer* layer, fastrnn_config* config) FASTRNN_NOEXCEPT;

/* Weights in torch's order: weight_ih_l0, weight_hh_l0, [bias_ih_l0, bias_hh_l0], [weight_hr_l0], then those of
 * "_l0_reverse", "_l1" and so on. */
FASTRNN_API size_t fastrnn_layer_count(const fastrnn_layer* layer) FASTRNN_NOEXCEPT;
/* index < count. `data` is NULL while the weight was never set: ask again once it is. The view of one that was set is
 * valid as long as the layer; fastrnn_layer_set and fastrnn_layer_assign change the values there. */
FASTRNN_API fastrnn_status fastrnn_layer_at(const fastrnn_layer* layer, size_t index, fastrnn_tensor* out,
                                            fastrnn_error* error) FASTRNN_NOEXCEPT;
/* Copies one weight, C order, of the layer's dtype; `count` must be its number of elements. */
FASTRNN_API fastrnn_status fastrnn_layer_set(fastrnn_layer* layer, const char* name, const void* values, size_t count,
                                             fastrnn_error* error) FASTRNN_NOEXCEPT;
/* Copies all weights from the tensors named prefix + name. Shapes and dtypes must be the layer's, F16 and
 * BF16 become float32; tensors of the prefix that the layer does not have are an error, those of other prefixes are not
 * looked at. */
FASTRNN_API fastrnn_status fastrnn_layer_assign(fastrnn_layer* layer, const fastrnn_weights* weights,
                                                const char* prefix, fastrnn_error* error) FASTRNN_NOEXCEPT;
/* Packs the weights for the kernels. Needed once all weights are set, and again when one has changed. Streams and
 * pools made before keep the weights they had. threads: from 1 to 1024. */
FASTRNN_API fastrnn_status fastrnn_layer_prepare(fastrnn_layer* layer, int32_t threads,
                                                 fastrnn_error* error) FASTRNN_NOEXCEPT;

/* Whole sequences. Element (t, b, j) of x is x[t * x_step + b * x_row + j], counted in elements; so is y. Batch-first
 * arrays have x_step = I, x_row = T * I. y must overlap neither x nor h0 nor c0; hn and cn overlap
 * nothing else, but may be what it says. */
typedef struct fastrnn_sequence {
  size_t size;            /* sizeof(fastrnn_sequence) */
  int64_t steps;          /* T, from 0 to 2147483647 */
  int64_t batch;          /* B, from 0 to 268435456 */
  const int64_t* lengths; /* [B], each from 0 to T, or NULL: all T. Outputs past a row's end become zero. */
  const void* x;          /* [T, B, I] */
  ptrdiff_t x_step, x_row;
  void* y; /* [T, B, D * P] */
  ptrdiff_t y_step, y_row;
  const void* h0;  /* [L * D, B, P], or NULL: zeros */
  const void* c0;  /* [L * D, B, H], or NULL: zeros; LSTM alone */
  void* hn;        /* [L * D, B, P] each row's state at its end, or NULL: not wanted. May be h0 itself. */
  void* cn;        /* [L * D, B, H], or NULL; LSTM alone. May be c0 itself. */
  int32_t threads; /* at most so many, from 1 to 1024; small work runs on one. The bits do not depend on it. */
} fastrnn_sequence;

/* Inference. Takes memory from a pool of the layer's, and a lock for it: not for the audio thread. */
FASTRNN_API fastrnn_status fastrnn_layer_run(const fastrnn_layer* layer, const fastrnn_sequence* sequence,
                                             fastrnn_error* error) FASTRNN_NOEXCEPT;

/* --------------------------------------------------------------------------------------------------------- training */

/* What a forward pass keeps for the backward pass. */
typedef struct fastrnn_tape fastrnn_tape;

/* Runs, and keeps what backward needs. x and y are not copied: they must stay as they are until the last backward.
 * lengths, h0 and c0 are copied. No dropout. */
FASTRNN_API fastrnn_status fastrnn_layer_forward(const fastrnn_layer* layer, const fastrnn_sequence* sequence,
                                                 fastrnn_tape** out, fastrnn_error* error) FASTRNN_NOEXCEPT;

/* Gradients of a loss. All pointers may be NULL: an input is then zero, an output not wanted; but all of `weights` are
 * needed, and written. */
typedef struct fastrnn_gradients {
  size_t size;    /* sizeof(fastrnn_gradients) */
  const void* dy; /* [T, B, D * P] */
  ptrdiff_t dy_step, dy_row;
  const void* dhn; /* [L * D, B, P] */
  const void* dcn; /* [L * D, B, H]; LSTM alone */
  void* dx;        /* [T, B, I], written whole */
  ptrdiff_t dx_step, dx_row;
  void* dh0;            /* [L * D, B, P] */
  void* dc0;            /* [L * D, B, H]; LSTM alone */
  void* const* weights; /* [fastrnn_layer_count] arrays of the weights' shapes, in their order; written whole */
  int32_t threads;      /* as in fastrnn_sequence */
  double* step_norms; /* [L * D, T, B] 2-norms of the gradient with respect to W x + b of all gates at each step, to see
                         * how far back it reaches; 0 past the end of a row */
} fastrnn_gradients;

/* Backpropagation through time. `tape` may be used several times, by the layer that made it, until a weight of
 * that is set or it is prepared again. */
FASTRNN_API fastrnn_status fastrnn_layer_backward(const fastrnn_layer* layer, const fastrnn_tape* tape,
                                                  const fastrnn_gradients* gradients,
                                                  fastrnn_error* error) FASTRNN_NOEXCEPT;
FASTRNN_API void fastrnn_tape_free(fastrnn_tape* tape) FASTRNN_NOEXCEPT;

/* ----------------------------------------------------------------------------------------------------- dense layers */

/* y = x W^T + b, for the head of a network. "weight" [O, I], "bias" [O]. */
typedef struct fastrnn_linear fastrnn_linear;

FASTRNN_API fastrnn_status fastrnn_linear_create(int32_t in_features, int32_t out_features, int32_t bias, int32_t dtype,
                                                 fastrnn_linear** out, fastrnn_error* error) FASTRNN_NOEXCEPT;
/* The module that fastrnn wrote with this prefix, prepared. Of a file without metadata the sizes are taken from the
 * shapes of the tensors prefix + "weight" and prefix + "bias". */
FASTRNN_API fastrnn_status fastrnn_linear_load(const fastrnn_weights* weights, const char* prefix, int32_t dtype,
                                               fastrnn_linear** out, fastrnn_error* error) FASTRNN_NOEXCEPT;
FASTRNN_API void fastrnn_linear_free(fastrnn_linear* linear) FASTRNN_NOEXCEPT;
FASTRNN_API int32_t fastrnn_linear_in_features(const fastrnn_linear* linear) FASTRNN_NOEXCEPT;
FASTRNN_API int32_t fastrnn_linear_out_features(const fastrnn_linear* linear) FASTRNN_NOEXCEPT;
/* Copies and packs. weight [O, I]; bias [O], or NULL where the layer has none. */
FASTRNN_API fastrnn_status fastrnn_linear_set(fastrnn_linear* linear, const void* weight, const void* bias,
                                              fastrnn_error* error) FASTRNN_NOEXCEPT;
/* x [N, I] to y [N, O], contiguous, not overlapping. `rows` from 0 to 2^31 - 1. */
FASTRNN_API fastrnn_status fastrnn_linear_run(const fastrnn_linear* linear, const void* x, void* y, int64_t rows,
                                              int32_t threads, fastrnn_error* error) FASTRNN_NOEXCEPT;
/* One row, real-time safe: x [I] to y [O], not overlapping. The bits of fastrnn_linear_run. */
FASTRNN_API fastrnn_status fastrnn_linear_step(const fastrnn_linear* linear, const void* x,
                                               void* y) FASTRNN_NONBLOCKING;
/* `steps` of them, the bits the same: row t is at x + t * x_step, in elements, and at y + t * y_step. x and
 * y do not overlap; strides are checked as those of fastrnn_stream_process. */
FASTRNN_API fastrnn_status fastrnn_linear_process(const fastrnn_linear* linear, int64_t steps, const void* x,
                                                  ptrdiff_t x_step, void* y, ptrdiff_t y_step) FASTRNN_NONBLOCKING;

/* ---------------------------------------------------------------------------------------------------------- writing */

/* To remember of a module, in UTF-8: prefix + key in the file's metadata, for fastrnn_weights_metadata. The key
 * has no '.', and is none that fastrnn writes. Never grows. */
typedef struct fastrnn_entry {
  const char* key;
  const char* value;
} fastrnn_entry;

/* A recurrent or a dense layer; one of the two pointers is NULL. Its tensors are named prefix + "weight_ih_l0" and so
 * on: the prefix is a module's name and a '.' ("lstm."), in UTF-8, or "" for a module that is alone. Never grows. */
typedef struct fastrnn_module {
  const char* prefix;
  const fastrnn_layer* layer;
  const fastrnn_linear* linear;
  const fastrnn_entry* metadata; /* [entries] or NULL */
  size_t entries;
} fastrnn_module;

/* Writes what fastrnn.save() of Python writes (or layer.save(), for the prefix ""), to a file beside `path` that then
 * takes its place. At least one module; all weights must be set, and prefixes must differ. */
FASTRNN_API fastrnn_status fastrnn_save(const char* path, const fastrnn_module* modules, size_t count,
                                        fastrnn_error* error) FASTRNN_NOEXCEPT;
/* The same file in memory, for fastrnn_weights_parse: its size goes to *bytes, and its bytes to `out`, which has room
 * for `capacity` of them, or is NULL to ask for the size alone. */
FASTRNN_API fastrnn_status fastrnn_serialize(const fastrnn_module* modules, size_t count, void* out, size_t capacity,
                                             size_t* bytes, fastrnn_error* error) FASTRNN_NOEXCEPT;

#if defined(__cplusplus)
} /* extern "C" */
#endif

#include <fastrnn/streams.h>

#endif
