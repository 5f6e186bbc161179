/* Parameters of channels or of trailing axes: PReLU (He et al. 2015), Affine, Expand. */
#include "channels.h"

#include "pointwise.h"
#include "sums.h"

enum { PRELU, PRELU_GRAD, AFFINE };

/* x (N, ...) as rows of `width` elements; row r of all samples has parameter r % size (axis 1), or element i of a row
   has parameter i (axis -1, width = size). */
typedef struct {
    const float *x, *gy, *scale, *bias;
    float *to;
    int64_t rows, width, size;
    int what;
} job;

INLINE float changed(int what, const job *j, int64_t at, float scale, float bias) {
    float x = j->x[at];
    if (what == PRELU) return x > 0 || x != x ? x : scale * x;
    if (what == PRELU_GRAD) return j->gy[at] * (x > 0 ? 1 : scale);
    return x * scale + bias;
}

INLINE void change_row(int what, const job *j, int64_t row) {
    int64_t start = row * j->width, parameter = row % j->size;
    float scale = j->scale ? j->scale[parameter] : 1, bias = j->bias ? j->bias[parameter] : 0;
    INDEPENDENT
    for (int64_t i = 0; i < j->width; i++) j->to[start + i] = changed(what, j, start + i, scale, bias);
}

static void rows_part(const void *context, ea_share share) {
    const job *j = context;
    range rows = share_of((int)j->rows, share);
    for (int row = rows.first; row < rows.last; row++)
        if (j->what == PRELU) change_row(PRELU, j, row);
        else if (j->what == PRELU_GRAD) change_row(PRELU_GRAD, j, row);
        else change_row(AFFINE, j, row);
}

static void trailing_part(const void *context, ea_share share) {
    const job *j = context;
    range rows = share_of((int)j->rows, share);
    for (int row = rows.first; row < rows.last; row++) {
        int64_t start = row * j->width;
        INDEPENDENT
        for (int64_t i = 0; i < j->width; i++)
            j->to[start + i] = j->x[start + i] * (j->scale ? j->scale[i] : 1) + (j->bias ? j->bias[i] : 0);
    }
}

static int32_t run_rows(job j, const ea_tensor *x, int axis, int64_t size, const ea_call *call) {
    int64_t all = elements(x);
    j.to = writable(call->outputs[0]);
    j.size = size;
    j.width = axis == 1 ? sample_elements(x) / size : size;
    j.rows = all / j.width;
    ea_parallel(worth_moving(all, call->threads), axis == 1 ? rows_part : trailing_part, &j);
    return EA_OK;
}

int32_t ea_prelu_run(const ea_call *call) {
    const ea_tensor *x = call->inputs[0], *slope = call->inputs[1];
    return run_rows((job){.x = floats(x), .scale = floats(slope), .what = PRELU}, x, 1, elements(slope), call);
}

int32_t ea_prelu_input_grad_run(const ea_call *call) {
    const ea_tensor *const *in = call->inputs;
    job j = {.gy = floats(in[0]), .x = floats(in[1]), .scale = floats(in[2]), .what = PRELU_GRAD};
    return run_rows(j, in[1], 1, elements(in[2]), call);
}

int32_t ea_prelu_slope_grad_run(const ea_call *call) {
    const ea_tensor *const *in = call->inputs, *gs = call->outputs[0];
    int64_t size = elements(gs), width = sample_elements(in[1]) / size;
    for (int sample = 0; sample < in[1]->shape[0]; sample++)
        for (int64_t c = 0; c < size; c++) {
            const float *gy = floats(in[0]) + (sample * size + c) * width, *x = floats(in[1]) + (sample * size + c) * width;
            double total = 0;
            for (int64_t i = 0; i < width; i++) total += (double)gy[i] * (x[i] > 0 ? 0 : x[i]);
            writable(gs)[c] += floats(in[2])[sample] * (float)total;
        }
    return EA_OK;
}

/* Attribute: axis. */
int32_t ea_affine_run(const ea_call *call) {
    const ea_tensor *const *in = call->inputs, *parameter = in[1] ? in[1] : in[2];
    job j = {.x = floats(in[0]), .scale = floats(in[1]), .bias = floats(in[2]), .what = AFFINE};
    return run_rows(j, in[0], call->attrs[0].i, parameter ? elements(parameter) : 1, call);
}

int32_t ea_affine_input_grad_run(const ea_call *call) {
    const ea_tensor *gy = call->inputs[0], *scale = call->inputs[1];
    return run_rows((job){.x = floats(gy), .scale = floats(scale), .what = AFFINE}, gy, call->attrs[0].i, elements(scale), call);
}

/* The parameter has the shape of the last axes of y. */
int32_t ea_expand_run(const ea_call *call) {
    const ea_tensor *p = call->inputs[0], *y = call->outputs[0];
    int64_t count = elements(p);
    for (int64_t at = 0; at < elements(y); at += count) memcpy(writable(y) + at, p->data, (size_t)count * 4);
    return EA_OK;
}
