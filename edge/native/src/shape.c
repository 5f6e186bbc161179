#include "shape.h"

#include "vec.h"

/* Copy a block of `shape`: the last axis lies together on both sides or is stepped through. */
typedef struct {
    int rank;
    int32_t shape[EA_MAX_RANK];
    int64_t from_step[EA_MAX_RANK], to_step[EA_MAX_RANK];
} block;

static void copy_block(const block *b, const float *from, float *to) {
    int last = b->rank - 1, width = b->shape[last];
    int64_t rows = 1;
    for (int axis = 0; axis < last; axis++) rows *= b->shape[axis];
    for (int64_t row = 0; row < rows; row++) {
        int64_t rest = row, source = 0, target = 0;
        for (int axis = last - 1; axis >= 0; axis--) {
            source += rest % b->shape[axis] * b->from_step[axis];
            target += rest % b->shape[axis] * b->to_step[axis];
            rest /= b->shape[axis];
        }
        if (b->from_step[last] == 1 && b->to_step[last] == 1)
            memcpy(to + target, from + source, (size_t)width * 4);
        else
            for (int i = 0; i < width; i++) to[target + i * b->to_step[last]] = from[source + i * b->from_step[last]];
    }
}

static void steps_of(int rank, const int32_t *shape, int64_t *steps) {
    int64_t step = 1;
    for (int axis = rank - 1; axis >= 0; axis--) {
        steps[axis] = step;
        step *= shape[axis];
    }
}

/* Attributes: the permutation. */
int32_t ea_transpose_run(const ea_call *call) {
    const ea_tensor *x = call->inputs[0], *y = call->outputs[0];
    block b = {.rank = x->rank};
    int64_t steps[EA_MAX_RANK];
    steps_of(x->rank, x->shape, steps);
    steps_of(y->rank, y->shape, b.to_step);
    for (int axis = 0; axis < x->rank; axis++) {
        b.shape[axis] = y->shape[axis];
        b.from_step[axis] = steps[call->attrs[axis].i];
    }
    copy_block(&b, floats(x), writable(y));
    return EA_OK;
}

/* Attribute: axis. */
int32_t ea_concat_run(const ea_call *call) {
    const ea_tensor *y = call->outputs[0];
    int64_t steps[EA_MAX_RANK] = {0}, done = 0;
    steps_of(y->rank, y->shape, steps);
    int axis = call->attrs[0].i;
    int64_t row = steps[axis] * y->shape[axis], rows = elements(y) / row;
    for (int part = 0; part < call->input_count; part++) {
        int64_t width = call->inputs[part]->shape[axis] * steps[axis];
        for (int64_t r = 0; r < rows; r++)
            memcpy(writable(y) + r * row + done, floats(call->inputs[part]) + r * width, (size_t)width * 4);
        done += width;
    }
    return EA_OK;
}

/* The part of a large tensor (N, ...) that begins at `starts` and ends at `ends`, one each per axis after the batch. */
static block inner_block(const ea_tensor *large, const int32_t *starts, const int32_t *ends, int64_t *offset,
                         int64_t *part_steps, int64_t *large_steps) {
    block b = {.rank = large->rank, .shape = {large->shape[0]}};
    steps_of(large->rank, large->shape, large_steps);
    *offset = 0;
    for (int axis = 1; axis < large->rank; axis++) {
        b.shape[axis] = ends[axis - 1] - starts[axis - 1];
        *offset += starts[axis - 1] * large_steps[axis];
    }
    steps_of(large->rank, b.shape, part_steps);
    return b;
}

/* A place on an axis; negative ones count from its end. */
static int32_t bounded(int32_t place, int32_t size) { return smaller(larger(place < 0 ? place + size : place, 0), size); }

/* Attributes: starts, ends. */
int32_t ea_slice_run(const ea_call *call) {
    const ea_tensor *x = call->inputs[0];
    int32_t starts[EA_MAX_RANK], ends[EA_MAX_RANK];
    for (int i = 0; i < x->rank - 1; i++) {
        starts[i] = bounded(call->attrs[i].i, x->shape[1 + i]);
        ends[i] = bounded(call->attrs[x->rank - 1 + i].i, x->shape[1 + i]);
    }
    int64_t offset, part[EA_MAX_RANK], large[EA_MAX_RANK];
    block b = inner_block(x, starts, ends, &offset, part, large);
    memcpy(b.from_step, large, sizeof large);
    memcpy(b.to_step, part, sizeof part);
    copy_block(&b, floats(x) + offset, writable(call->outputs[0]));
    return EA_OK;
}

/* Attributes: value, elements before, elements after. */
int32_t ea_pad_run(const ea_call *call) {
    const ea_tensor *y = call->outputs[0];
    int32_t starts[EA_MAX_RANK], ends[EA_MAX_RANK];
    for (int i = 0; i < y->rank - 1; i++) {
        starts[i] = call->attrs[1 + i].i;
        ends[i] = y->shape[1 + i] - call->attrs[y->rank + i].i;
    }
    for (int64_t i = 0; i < elements(y); i++) writable(y)[i] = call->attrs[0].f;
    int64_t offset, part[EA_MAX_RANK], large[EA_MAX_RANK];
    block b = inner_block(y, starts, ends, &offset, part, large);
    memcpy(b.from_step, part, sizeof part);
    memcpy(b.to_step, large, sizeof large);
    copy_block(&b, floats(call->inputs[0]), writable(y) + offset);
    return EA_OK;
}
