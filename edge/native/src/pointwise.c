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

/* The axes of y with the steps of both operands (0: repeated); neighbours that can be walked as one are joined. */
typedef struct {
    int rank;
    int64_t shape[EA_MAX_RANK], a[EA_MAX_RANK], b[EA_MAX_RANK];
} pair_axes;

static pair_axes joined_axes(const ea_tensor *a, const ea_tensor *b, const ea_tensor *y) {
    pair_axes all = {.rank = 0};
    int64_t step_a = 1, step_b = 1;
    for (int axis = y->rank - 1; axis >= 0; axis--) { /* innermost first */
        int64_t own_a = a->shape[axis] == 1 ? 0 : step_a, own_b = b->shape[axis] == 1 ? 0 : step_b;
        int last = all.rank - 1;
        if (y->shape[axis] == 1) continue;
        if (last >= 0 && own_a == all.a[last] * all.shape[last] && own_b == all.b[last] * all.shape[last])
            all.shape[last] *= y->shape[axis];
        else {
            all.shape[all.rank] = y->shape[axis], all.a[all.rank] = own_a, all.b[all.rank] = own_b;
            all.rank++;
        }
        step_a *= a->shape[axis];
        step_b *= b->shape[axis];
    }
    if (!all.rank) all.rank = 1, all.shape[0] = 1;
    return all;
}

/* From the last element to the first: y may lie on the start of a, of which no element lies behind the one of y that
   it is for. Where a is not repeated the way does not matter. */
INLINE void combine_row(enum operation what, const float *a, int64_t step_a, const float *b, int64_t step_b,
                        int64_t width, float *y) {
    if (step_a == 1 && step_b == 1) {
        INDEPENDENT
        for (int64_t i = 0; i < width; i++) y[i] = combined(what, a[i], b[i]);
    } else if (step_a == 1) {
        float other = b[0];
        INDEPENDENT
        for (int64_t i = 0; i < width; i++) y[i] = combined(what, a[i], other);
    } else
        for (int64_t i = width - 1; i >= 0; i--) y[i] = combined(what, a[i * step_a], b[i * step_b]);
}

static void combine_repeated(const ea_tensor *a, const ea_tensor *b, const ea_tensor *y, enum operation what) {
    pair_axes all = joined_axes(a, b, y);
    int64_t width = all.shape[0];
    for (int64_t row = elements(y) / width - 1; row >= 0; row--) {
        int64_t rest = row;
        const float *from_a = floats(a), *from_b = floats(b);
        float *to = writable(y) + row * width;
        for (int axis = 1; axis < all.rank; axis++) {
            from_a += rest % all.shape[axis] * all.a[axis];
            from_b += rest % all.shape[axis] * all.b[axis];
            rest /= all.shape[axis];
        }
        if (what == ADD) combine_row(ADD, from_a, all.a[0], from_b, all.b[0], width, to);
        else if (what == SUBTRACT) combine_row(SUBTRACT, from_a, all.a[0], from_b, all.b[0], width, to);
        else combine_row(MULTIPLY, from_a, all.a[0], from_b, all.b[0], width, to);
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
