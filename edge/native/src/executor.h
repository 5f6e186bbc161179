/* The executor: runs the steps of one step program (edge/lower/table.py) in one call.

   The step table is one block of memory that edge/native/table.py fills; all pointers in it point into it, into the
   arena, or at tensors outside it. Nothing here allocates. */
#ifndef EA_EXECUTOR_H
#define EA_EXECUTOR_H

#include "abi.h"

#define EA_MOST_INPUTS 32

/* Codes of steps that are no operations: samples that are there already; a chain over slices. */
enum { EA_LOAD = -1, EA_SLICES = -2 };

/* What the data of a value is: an address; an offset in tile memory; otherwise the number of the value that it is a
   slice of: that of sample n and block b starts n*sample + b*block bytes behind its first byte. */
enum { EA_ADDRESS = -1, EA_TILE = -2 };

typedef struct {
    ea_tensor tensor; /* for the samples at hand; inside Slices: one sample, one block */
    int64_t room;     /* bytes from the address on that belong to it */
    int64_t sample, block;
    int32_t base;
} ea_value;

typedef struct {
    void *workspace;
    int64_t workspace_bytes;
    int32_t code, inputs, outputs;
    int32_t operands; /* where its values' numbers start, inputs first; -1: absent or dropped */
    int32_t attrs;    /* where its attributes start */
    int32_t update;   /* SgdUpdate: whose gradient must be finite, and whose first attribute is the row */
    int32_t slices;   /* EA_SLICES: which */
    int32_t inner;    /* whether it is inside Slices */
} ea_step;

/* The inside of a Slices step: steps first..., of them `before`, `each` and `after`. A worker has tiles and, behind
   them, scratch memory. */
typedef struct {
    int64_t tile_bytes, scratch_bytes, sample_work;
    int32_t blocks, first, before, each, after;
} ea_slices;

typedef struct {
    ea_value *values;
    ea_step *steps; /* those of the program, then those inside Slices */
    ea_slices *slices;
    ea_attr *attrs;
    int32_t *operands;
    int32_t value_count, step_count, inner_count, slices_count, attr_count, operand_count;
    int32_t threads, samples; /* samples at hand */
} ea_table;

/* Where something happened: a step (of the program), a value and another one or what it was compared with. */
typedef struct {
    int32_t step, value;
    int64_t found, expected;
} ea_report;

/* Called after a step; anything but 0 stops. */
typedef int32_t ea_after(int32_t step);

enum { EA_INTERRUPTED = 3, EA_NOT_FINITE = 4 };

/* Run steps [first, last) with that row of step sizes.
   after: NULL, or called after a step when `interval` nanoseconds have passed since the last call (0: every step).
   Returns EA_OK, or what stopped it, with the step in *report and after EA_NOT_FINITE the gradient. */
EA_EXPORT int32_t ea_execute(const ea_table *table, int32_t first, int32_t last, int32_t row, ea_after *after,
                             int64_t interval, ea_report *report);

/* A span of time (steps, inclusive) in which a buffer takes some bytes of the arena. */
typedef struct {
    int64_t offset, bytes;
    int32_t first, last, buffer;
} ea_span;

enum {
    EA_BAD_CODE = 16,
    EA_BAD_OPERAND,   /* no such value, or more than there may be */
    EA_BAD_SHAPE,     /* rank or an axis */
    EA_BAD_ROOM,      /* a value needs more bytes than there are */
    EA_BAD_ADDRESS,   /* outside the arena, or not aligned to its elements */
    EA_BAD_WORKSPACE, /* too small, outside the arena or not aligned */
    EA_BAD_TIME,      /* a step names a value when its buffer is not there */
    EA_BAD_OVERLAP,   /* an output lies across another operand */
    EA_SHARED_BYTES,  /* two buffers use the same byte at the same time */
    EA_BAD_SLICES,    /* blocks, tiles or steps inside */
};

/* Check everything an execution relies on.
   homes: for every value the buffer it lies in, -1: outside the arena (its room is what its owner has).
   spans: of every buffer, workspaces of steps included. */
EA_EXPORT int32_t ea_check(const ea_table *table, const void *arena, int64_t arena_bytes, const int32_t *homes,
                           const ea_span *spans, int32_t span_count, ea_report *report);

#endif
