/* Average pooling and resizing of x (N, C, [H,] W): every output element is a weighted sum of a few input elements, a
   row's weights times a column's. The gradients walk the same terms the other way. */
#include "maps.h"

#include "parallel.h"
#include "vec.h"

/* What an output place reads along one axis: elements first..first+count of the input, the same weight each (pooling)
   or `before` and 1 - before (resizing: two elements at most). */
typedef struct {
    int first, count;
    float before, after;
} terms;

enum { NEAREST, LINEAR };
enum { ASYMMETRIC, HALF_PIXEL, ALIGN_CORNERS };

typedef struct {
    int size, out, kernel, stride, pad;
} axis;

typedef struct {
    axis y, x;
    const float *from;
    float *to;
    int maps, resize, mode, coordinates, count_padding, adjoint;
} job;

static terms window_terms(const axis *a, int place, int count_padding) {
    int first = place * a->stride - a->pad, last = smaller(first + a->kernel, a->size);
    first = larger(first, 0);
    float weight = 1.0f / (float)(count_padding ? a->kernel : last - first);
    return (terms){first, last - first, weight, weight};
}

/* The output's place as a fraction of whole numbers (ONNX Resize, its sizes given). */
static terms resize_terms(const axis *a, int place, int mode, int coordinates) {
    int64_t above = (int64_t)place * a->size, below = a->out;
    if (coordinates == HALF_PIXEL) above = (2 * (int64_t)place + 1) * a->size - a->out, below = 2 * (int64_t)a->out;
    if (coordinates == ALIGN_CORNERS) above = (int64_t)place * (a->size - 1), below = larger(a->out - 1, 1);
    if (above < 0) above = 0;
    if (mode == LINEAR && above > (a->size - 1) * below) above = (a->size - 1) * below;
    int first = (int)(above / below);
    float after = mode == LINEAR ? (float)(above % below) / (float)below : 0;
    return (terms){first, after > 0 ? 2 : 1, 1 - after, after};
}

static terms terms_of(const job *j, const axis *a, int place) {
    return j->resize ? resize_terms(a, place, j->mode, j->coordinates) : window_terms(a, place, j->count_padding);
}

static void gather(const job *j, const float *x, float *y) {
    for (int row = 0; row < j->y.out; row++) {
        terms down = terms_of(j, &j->y, row);
        for (int column = 0; column < j->x.out; column++) {
            terms across = terms_of(j, &j->x, column);
            float total = 0;
            for (int i = 0; i < down.count; i++) {
                const float *from = x + (down.first + i) * j->x.size + across.first;
                float part = across.before * from[0];
                for (int k = 1; k < across.count; k++) part += across.after * from[k];
                total += (i ? down.after : down.before) * part;
            }
            y[row * j->x.out + column] = total;
        }
    }
}

static void scatter(const job *j, const float *gy, float *gx) {
    memset(gx, 0, (size_t)(j->y.size * j->x.size) * 4);
    for (int row = 0; row < j->y.out; row++) {
        terms down = terms_of(j, &j->y, row);
        for (int column = 0; column < j->x.out; column++) {
            terms across = terms_of(j, &j->x, column);
            float value = gy[row * j->x.out + column];
            for (int i = 0; i < down.count; i++) {
                float *to = gx + (down.first + i) * j->x.size + across.first;
                float part = (i ? down.after : down.before) * value;
                for (int k = 0; k < across.count; k++) to[k] += (k ? across.after : across.before) * part;
            }
        }
    }
}

static void maps_part(const void *context, ea_share share) {
    const job *j = context;
    range maps = share_of(j->maps, share);
    int64_t small = (int64_t)j->y.out * j->x.out, large = (int64_t)j->y.size * j->x.size;
    for (int map = maps.first; map < maps.last; map++)
        if (j->adjoint) scatter(j, j->from + map * small, j->to + map * large);
        else gather(j, j->from + map * large, j->to + map * small);
}

/* The spatial axes of x and y (N, C, [H,] W). */
static job make_job(const ea_tensor *x, const ea_tensor *y, const ea_call *call, int adjoint) {
    job j = {.maps = x->shape[0] * x->shape[1], .adjoint = adjoint};
    j.x.size = x->shape[x->rank - 1], j.x.out = y->shape[y->rank - 1];
    j.y.size = x->rank == 4 ? x->shape[2] : 1, j.y.out = y->rank == 4 ? y->shape[2] : 1;
    j.from = floats(call->inputs[0]), j.to = writable(call->outputs[0]);
    return j;
}

/* Attributes: kernel, strides, pads, each rows first; whether padding counts. */
static int32_t run_pool(job j, const ea_call *call) {
    const ea_attr *a = call->attrs;
    j.y.kernel = a[0].i, j.x.kernel = a[1].i, j.y.stride = a[2].i, j.x.stride = a[3].i;
    j.y.pad = a[4].i, j.x.pad = a[5].i, j.count_padding = a[8].i;
    int64_t work = (int64_t)j.maps * j.y.out * j.x.out * j.y.kernel * j.x.kernel;
    ea_parallel(ea_worth(4 * work, call->threads), maps_part, &j);
    return EA_OK;
}

int32_t ea_average_pool_run(const ea_call *call) {
    return run_pool(make_job(call->inputs[0], call->outputs[0], call, 0), call);
}
int32_t ea_average_pool_grad_run(const ea_call *call) {
    return run_pool(make_job(call->outputs[0], call->inputs[0], call, 1), call);
}

/* Attributes: mode, coordinates. */
static int32_t run_resize(job j, const ea_call *call) {
    j.resize = 1, j.mode = call->attrs[0].i, j.coordinates = call->attrs[1].i;
    ea_parallel(ea_worth((int64_t)16 * j.maps * j.y.out * j.x.out, call->threads), maps_part, &j);
    return EA_OK;
}

int32_t ea_resize_run(const ea_call *call) {
    return run_resize(make_job(call->inputs[0], call->outputs[0], call, 0), call);
}
int32_t ea_resize_grad_run(const ea_call *call) {
    return run_resize(make_job(call->outputs[0], call->inputs[0], call, 1), call);
}
