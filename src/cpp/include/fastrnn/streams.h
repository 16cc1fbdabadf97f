/* What is fed sample by sample: streams, and pools of them. fastrnn.h, whose rules hold, includes this file. */
#ifndef FASTRNN_STREAMS_H
#define FASTRNN_STREAMS_H

#include <fastrnn/fastrnn.h>

#if defined(__cplusplus)
extern "C" {
#endif

/* ---------------------------------------------------------------------------------------------------------- streams */

/* A layer fed one sample at a time, its memory carried along. It gives the bits that the whole sequence gives. Belongs
 * to one thread at a time: handing it from one to another is fine where something orders their accesses. */
typedef struct fastrnn_stream fastrnn_stream;

/* `batch` rows from 1 to 1048576, each with a memory of its own, all zero. The layer must be prepared and have one
 * direction. The stream shares the packed weights and may outlive the layer. With more than one thread the units of
 * each step are shared among them, which pays for large layers, and the real-time guarantees end. Everything a step
 * needs is allocated and touched here. */
FASTRNN_API fastrnn_status fastrnn_stream_create(const fastrnn_layer* layer, int64_t batch, int32_t threads,
                                                 fastrnn_stream** out, fastrnn_error* error) FASTRNN_NOEXCEPT;
FASTRNN_API void fastrnn_stream_free(fastrnn_stream* stream) FASTRNN_NOEXCEPT;
/* I, P and B, which it keeps when the layer is gone; 0 for NULL. */
FASTRNN_API int32_t fastrnn_stream_input_size(const fastrnn_stream* stream) FASTRNN_NONBLOCKING;
FASTRNN_API int32_t fastrnn_stream_output_size(const fastrnn_stream* stream) FASTRNN_NONBLOCKING;
FASTRNN_API int64_t fastrnn_stream_batch_size(const fastrnn_stream* stream) FASTRNN_NONBLOCKING;
/* The layer's, with L and H for the memory. `config->size` must be set. */
FASTRNN_API fastrnn_status fastrnn_stream_config(const fastrnn_stream* stream, fastrnn_config* config) FASTRNN_NOEXCEPT;
/* One step: x [B, I] to y [B, P], both contiguous. y may overlap x. FASTRNN_INVALID_ARGUMENT when a pointer is NULL. */
FASTRNN_API fastrnn_status fastrnn_stream_step(fastrnn_stream* stream, const void* x, void* y) FASTRNN_NONBLOCKING;
/* `steps` of them: element (t, b, j) of x is x[t * x_step + b * x_row + j], in elements; so is y. The same bits as so
 * many calls of step. y may be x when I is P and the strides are equal, else they must not overlap. Strides are
 * checked as those of fastrnn_sequence: FASTRNN_INVALID_ARGUMENT when one is negative, when they reach past the address
 * space, or when rows of y overlap. A stride that leads nowhere (of one step, of one row) may be anything. */
FASTRNN_API fastrnn_status fastrnn_stream_process(fastrnn_stream* stream, int64_t steps, const void* x,
                                                  ptrdiff_t x_step, ptrdiff_t x_row, void* y, ptrdiff_t y_step,
                                                  ptrdiff_t y_row) FASTRNN_NONBLOCKING;
/* Forgets: all rows, or one. */
FASTRNN_API fastrnn_status fastrnn_stream_reset(fastrnn_stream* stream) FASTRNN_NONBLOCKING;
FASTRNN_API fastrnn_status fastrnn_stream_reset_row(fastrnn_stream* stream, int64_t row) FASTRNN_NONBLOCKING;
/* Copies the memory out or in: h [L, B, P], and of an LSTM c [L, B, H]; c is NULL for the others. */
FASTRNN_API fastrnn_status fastrnn_stream_get_state(const fastrnn_stream* stream, void* h, void* c) FASTRNN_NONBLOCKING;
FASTRNN_API fastrnn_status fastrnn_stream_set_state(fastrnn_stream* stream, const void* h,
                                                    const void* c) FASTRNN_NONBLOCKING;

/* ----------------------------------------------------------------------------------------------------------- pools */

/* Many streams of one layer that come and go, as voices or clients do; those that have a sample are advanced together,
 * as one batch. A stream has the bits of a fastrnn_stream of one row, whoever shares its steps. A pool belongs to one
 * thread at a time, as a stream does. */
typedef struct fastrnn_pool fastrnn_pool;

/* Room for `capacity` streams, from 1 to 1048576; it has none yet. All else is as for fastrnn_stream_create, but that
 * with more than one thread streams or units are shared, and small steps run on one. */
FASTRNN_API fastrnn_status fastrnn_pool_create(const fastrnn_layer* layer, int64_t capacity, int32_t threads,
                                               fastrnn_pool** out, fastrnn_error* error) FASTRNN_NOEXCEPT;
FASTRNN_API void fastrnn_pool_free(fastrnn_pool* pool) FASTRNN_NOEXCEPT;
/* I and P; how many streams there may be, and how many there are. 0 for NULL. */
FASTRNN_API int32_t fastrnn_pool_input_size(const fastrnn_pool* pool) FASTRNN_NONBLOCKING;
FASTRNN_API int32_t fastrnn_pool_output_size(const fastrnn_pool* pool) FASTRNN_NONBLOCKING;
FASTRNN_API int64_t fastrnn_pool_capacity(const fastrnn_pool* pool) FASTRNN_NONBLOCKING;
FASTRNN_API int64_t fastrnn_pool_size(const fastrnn_pool* pool) FASTRNN_NONBLOCKING;
/* The layer's, with L and H for the memory. `config->size` must be set. */
FASTRNN_API fastrnn_status fastrnn_pool_config(const fastrnn_pool* pool, fastrnn_config* config) FASTRNN_NOEXCEPT;

/* A new stream, its memory all zero. *id becomes a number from 0 on that no other stream of this pool ever has or had;
 * -1 with FASTRNN_FULL. */
FASTRNN_API fastrnn_status fastrnn_pool_join(fastrnn_pool* pool, int64_t* id) FASTRNN_NONBLOCKING;
/* From now on nobody has this id: FASTRNN_INVALID_ARGUMENT, here and below, for an id that nobody has. */
FASTRNN_API fastrnn_status fastrnn_pool_leave(fastrnn_pool* pool, int64_t id) FASTRNN_NONBLOCKING;
/* 1 where a stream has this id, else 0. */
FASTRNN_API int32_t fastrnn_pool_contains(const fastrnn_pool* pool, int64_t id) FASTRNN_NONBLOCKING;
/* One step of n streams, 0 to capacity, in any order, each once: x [n, I] to y [n, P] in the order of ids [n], both
 * contiguous, not overlapping. After an error none has advanced. */
FASTRNN_API fastrnn_status fastrnn_pool_step(fastrnn_pool* pool, const int64_t* ids, int64_t n, const void* x,
                                             void* y) FASTRNN_NONBLOCKING;
/* `steps` of them, the bits the same: element (t, i, j) of x, for the stream ids[i], is x[t * x_step + i * x_row + j],
 * in elements; so is y, which does not overlap x. Strides are checked as those of fastrnn_stream_process. */
FASTRNN_API fastrnn_status fastrnn_pool_process(fastrnn_pool* pool, const int64_t* ids, int64_t n, int64_t steps,
                                                const void* x, ptrdiff_t x_step, ptrdiff_t x_row, void* y,
                                                ptrdiff_t y_step, ptrdiff_t y_row) FASTRNN_NONBLOCKING;
/* n streams forget, each named once. */
FASTRNN_API fastrnn_status fastrnn_pool_reset(fastrnn_pool* pool, const int64_t* ids, int64_t n) FASTRNN_NONBLOCKING;
/* Copies a stream's memory out or in: h [L, P], and of an LSTM c [L, H]; c is NULL for the others. */
FASTRNN_API fastrnn_status fastrnn_pool_get_state(const fastrnn_pool* pool, int64_t id, void* h,
                                                  void* c) FASTRNN_NONBLOCKING;
FASTRNN_API fastrnn_status fastrnn_pool_set_state(fastrnn_pool* pool, int64_t id, const void* h,
                                                  const void* c) FASTRNN_NONBLOCKING;

#if defined(__cplusplus)
} /* extern "C" */
#endif

#endif
