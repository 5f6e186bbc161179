#include "reduce.h"

#include "sums.h"
#include "vec.h"

/* A wide shape, and for each of its axes whether it is summed over and the step in a second operand (0: repeated). */
typedef struct {
    int rank;
    int32_t shape[EA_MAX_RANK];
    int summed[EA_MAX_RANK];
    int64_t step[EA_MAX_RANK], other_step[EA_MAX_RANK];
} walk;

static walk make_walk(const ea_tensor *wide, const ea_tensor *other) {
    walk w = {.rank = wide->rank};
    int64_t step = 1, other_step = 1;
    for (int axis = wide->rank - 1; axis >= 0; axis--) {
        w.shape[axis] = wide->shape[axis];
        w.step[axis] = step;
        step *= wide->shape[axis];
        if (!other) continue;
        w.other_step[axis] = other->shape[axis] == 1 ? 0 : other_step;
        other_step *= other->shape[axis];
    }
    return w;
}

/* Join neighbouring axes that can be walked as one. */
static void join_axes(walk *w) {
    int kept = 0;
    for (int axis = 1; axis < w->rank; axis++) {
        int together = w->summed[kept] == w->summed[axis] &&
                       w->other_step[kept] == w->other_step[axis] * w->shape[axis];
        if (!together) kept++;
        w->shape[kept] = together ? w->shape[kept] * w->shape[axis] : w->shape[axis];
        w->summed[kept] = w->summed[axis];
        w->step[kept] = w->step[axis];
        w->other_step[kept] = w->other_step[axis];
    }
    w->rank = kept + 1;
}

/* Places of the element with number `at` among the axes that are (or are not) summed over. */
static void locate(const walk *w, int summed, int64_t at, int64_t *place, int64_t *other) {
    for (int axis = w->rank - 1; axis >= 0; axis--) {
        if (w->summed[axis] != summed) continue;
        int64_t i = at % w->shape[axis];
        at /= w->shape[axis];
        *place += i * w->step[axis];
        *other += i * w->other_step[axis];
    }
}

static int64_t count_of(const walk *w, int summed) {
    int64_t count = 1;
    for (int axis = 0; axis < w->rank; axis++)
        if (w->summed[axis] == summed) count *= w->shape[axis];
    return count;
}

/* to[o] = factor * sum over the summed axes of x (times other). `to` may lie on the start of x: the elements of x that
   later results need lie behind. */
static void reduce(walk *w, const float *x, const float *other, double factor, float *to) {
    join_axes(w);
    int64_t run = 1, other_run = 0;
    int last = w->rank - 1;
    int64_t outer = count_of(w, 0);
    if (w->summed[last]) { /* the innermost axis is summed in one go */
        run = w->shape[last];
        other_run = w->other_step[last];
        w->shape[last] = 1;
    }
    int64_t inner = count_of(w, 1);
    for (int64_t o = 0; o < outer; o++) {
        int64_t base = 0, other_base = 0;
        locate(w, 0, o, &base, &other_base);
        double total = 0;
        for (int64_t i = 0; i < inner; i++) {
            int64_t place = base, other_place = other_base;
            locate(w, 1, i, &place, &other_place);
            if (!other) total += ea_sum(x + place, run);
            else if (other_run == 1) total += ea_dot(x + place, other + other_place, run);
            else total += ea_sum(x + place, run) * other[other_place];
        }
        to[o] = (float)(total * factor);
    }
}

/* gx = gy summed along the axes where gx has length 1. */
int32_t ea_sum_to_run(const ea_call *call) {
    const ea_tensor *gy = call->inputs[0], *gx = call->outputs[0];
    walk w = make_walk(gy, NULL);
    for (int axis = 0; axis < w.rank; axis++) w.summed[axis] = gx->shape[axis] != gy->shape[axis];
    reduce(&w, floats(gy), NULL, 1, writable(gx));
    return EA_OK;
}

/* gx = gy * other summed along the axes where gx has length 1. */
int32_t ea_mul_grad_run(const ea_call *call) {
    const ea_tensor *gy = call->inputs[0], *other = call->inputs[1], *gx = call->outputs[0];
    walk w = make_walk(gy, other);
    for (int axis = 0; axis < w.rank; axis++) w.summed[axis] = gx->shape[axis] != gy->shape[axis];
    reduce(&w, floats(gy), floats(other), 1, writable(gx));
    return EA_OK;
}

/* Attributes of Mean and MeanGrad: how many axes, the axes. */
static walk mean_walk(const ea_tensor *wide, const ea_attr *attrs) {
    walk w = make_walk(wide, NULL);
    for (int i = 0; i < attrs[0].i; i++) w.summed[attrs[1 + i].i] = 1;
    return w;
}

int32_t ea_mean_run(const ea_call *call) {
    const ea_tensor *x = call->inputs[0];
    walk w = mean_walk(x, call->attrs);
    double factor = 1 / (double)count_of(&w, 1);
    reduce(&w, floats(x), NULL, factor, writable(call->outputs[0]));
    return EA_OK;
}

/* gx = gy repeated over the axes, divided by how many elements were averaged. */
int32_t ea_mean_grad_run(const ea_call *call) {
    const ea_tensor *gx = call->outputs[0];
    walk w = mean_walk(gx, call->attrs);
    join_axes(&w);
    int64_t outer = count_of(&w, 0), inner = count_of(&w, 1), unused = 0;
    for (int64_t o = 0; o < outer; o++) {
        int64_t base = 0;
        locate(&w, 0, o, &base, &unused);
        float value = floats(call->inputs[0])[o] / (float)inner;
        for (int64_t i = 0; i < inner; i++) {
            int64_t place = base;
            locate(&w, 1, i, &place, &unused);
            writable(gx)[place] = value;
        }
    }
    return EA_OK;
}
