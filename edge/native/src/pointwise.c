#include "pointwise.h"

enum operation { ADD, SUBTRACT, MULTIPLY };

typedef struct {
    const float *a, *b;
    float *to;
    int64_t count;
    enum operation what;
} pair_job;

INLINE float combined(enum operation what, float a, float b) {
    return what == ADD ? a + b : what == SUBTRACT ? a - b : a * b;
}

INLINE void combine_range(enum operation what, const pair_job *j, range r) {
    INDEPENDENT
    for (int i = r.first; i < r.last; i++) j->to[i] = combined(what, j->a[i], j->b[i]);
}

static void pair_part(const void *context, ea_share share) {
    const pair_job *j = context;
    range r = share_of_elements(j->count, share);
    if (j->what == ADD) combine_range(ADD, j, r);
    else if (j->what == SUBTRACT) combine_range(SUBTRACT, j, r);
    else combine_range(MULTIPLY, j, r);
}

static int equal_shapes(const ea_tensor *a, const ea_tensor *b) {
    return a->rank == b->rank && memcmp(a->shape, b->shape, sizeof(int32_t) * (size_t)a->rank) == 0;
}

/* The operand's step along every axis of y: 0 where it is repeated. */
static void repeated_steps(const ea_tensor *operand, const ea_tensor *y, int64_t steps[EA_MAX_RANK]) {
    int64_t step = 1;
    for (int axis = y->rank - 1; axis >= 0; axis--) {
        steps[axis] = operand->shape[axis] == 1 ? 0 : step;
        step *= operand->shape[axis];
    }
}

/* y from operands with repeated axes, row by row of the last axis, from the last element to the first: y may lie on
   the start of a, of which no element lies behind the one of y that it is for. */
static void combine_repeated(const ea_tensor *a, const ea_tensor *b, const ea_tensor *y, enum operation what) {
    int64_t steps_a[EA_MAX_RANK], steps_b[EA_MAX_RANK];
    repeated_steps(a, y, steps_a);
    repeated_steps(b, y, steps_b);
    int last = y->rank - 1, width = y->shape[last];
    for (int64_t row = elements(y) / width - 1; row >= 0; row--) {
        int64_t rest = row;
        const float *from_a = floats(a), *from_b = floats(b);
        float *to = writable(y) + row * width;
        for (int axis = last - 1; axis >= 0; axis--) {
            from_a += rest % y->shape[axis] * steps_a[axis];
            from_b += rest % y->shape[axis] * steps_b[axis];
            rest /= y->shape[axis];
        }
        for (int i = width - 1; i >= 0; i--)
            to[i] = combined(what, from_a[i * steps_a[last]], from_b[i * steps_b[last]]);
    }
}

static int32_t pair_run(const ea_call *call, enum operation what) {
    const ea_tensor *a = call->inputs[0], *b = call->inputs[1], *y = call->outputs[0];
    if (equal_shapes(a, y) && equal_shapes(b, y)) {
        pair_job j = {floats(a), floats(b), writable(y), elements(y), what};
        ea_parallel(worth_moving(j.count, call->threads), pair_part, &j);
    } else
        combine_repeated(a, b, y, what);
    return EA_OK;
}

int32_t ea_add_run(const ea_call *call) { return pair_run(call, ADD); }
int32_t ea_sub_run(const ea_call *call) { return pair_run(call, SUBTRACT); }
int32_t ea_mul_run(const ea_call *call) { return pair_run(call, MULTIPLY); }

typedef struct {
    const float *w, *gw;
    float *to, step_size;
    int64_t count;
} update_job;

static void update_part(const void *context, ea_share share) {
    const update_job *j = context;
    range r = share_of_elements(j->count, share);
    INDEPENDENT
    for (int i = r.first; i < r.last; i++) j->to[i] = j->w[i] - j->step_size * j->gw[i];
}

/* Attributes: row of the step sizes, layer. */
int32_t ea_sgd_update_run(const ea_call *call) {
    const ea_tensor *const *in = call->inputs;
    float step_size = floats(in[2])[call->attrs[0].i * in[2]->shape[1] + call->attrs[1].i];
    update_job j = {floats(in[0]), floats(in[1]), writable(call->outputs[0]), step_size, elements(in[0])};
    ea_parallel(worth_moving(j.count, call->threads), update_part, &j);
    return EA_OK;
}

typedef struct {
    const float *x;
    float *y, factor, offset;
    int64_t count;
} scale_job;

static void scale_part(const void *context, ea_share share) {
    const scale_job *j = context;
    range r = share_of_elements(j->count, share);
    INDEPENDENT
    for (int i = r.first; i < r.last; i++) j->y[i] = j->factor * j->x[i] + j->offset;
}

/* Attributes: factor, offset. */
int32_t ea_scale_run(const ea_call *call) {
    const ea_tensor *x = call->inputs[0];
    scale_job j = {floats(x), writable(call->outputs[0]), call->attrs[0].f, call->attrs[1].f, elements(x)};
    ea_parallel(worth_moving(j.count, call->threads), scale_part, &j);
    return EA_OK;
}

int32_t ea_zero_run(const ea_call *call) {
    memset(call->outputs[0]->data, 0, (size_t)elements(call->outputs[0]) * 4);
    return EA_OK;
}

/* The output is the input's memory. */
int32_t ea_reshape_run(const ea_call *call) {
    (void)call;
    return EA_OK;
}
