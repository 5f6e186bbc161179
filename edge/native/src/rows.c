/* Softmax over the last axis and layer normalisation (Ba et al. 2016) over the last axes, row by row. */
#include <math.h>

#include "channels.h"
#include "elementary.h"
#include "pointwise.h"
#include "sums.h"

typedef struct {
    const float *x, *y, *gy, *scale, *bias, *factors;
    float *to, *x_hat, *inv_std;
    int rows, width;
    float eps;
} job;

static void softmax_row(const float *x, int width, float *y) {
    float most = x[0];
    for (int i = 1; i < width; i++)
        if (!(x[i] <= most)) most = x[i];
    INDEPENDENT
    for (int i = 0; i < width; i++) y[i] = ea_exp(x[i] - most);
    float inverse = (float)(1 / ea_sum(y, width));
    for (int i = 0; i < width; i++) y[i] *= inverse;
}

static void softmax_part(const void *context, ea_share share) {
    const job *j = context;
    range rows = share_of(j->rows, share);
    for (int row = rows.first; row < rows.last; row++)
        softmax_row(j->x + (ptrdiff_t)row * j->width, j->width, j->to + (ptrdiff_t)row * j->width);
}

/* gx = y * (gy - sum(gy * y)). */
static void softmax_grad_part(const void *context, ea_share share) {
    const job *j = context;
    range rows = share_of(j->rows, share);
    for (int row = rows.first; row < rows.last; row++) {
        const float *gy = j->gy + (ptrdiff_t)row * j->width, *y = j->y + (ptrdiff_t)row * j->width;
        float *gx = j->to + (ptrdiff_t)row * j->width, along = (float)ea_dot(gy, y, j->width);
        INDEPENDENT
        for (int i = 0; i < j->width; i++) gx[i] = y[i] * (gy[i] - along);
    }
}

static int32_t run_rows(job j, const ea_tensor *x, int dims, const ea_call *call, ea_body *body) {
    j.width = 1;
    for (int axis = x->rank - dims; axis < x->rank; axis++) j.width *= x->shape[axis];
    j.rows = (int)(elements(x) / j.width);
    ea_parallel(worth_moving(4 * elements(x), call->threads), body, &j);
    return EA_OK;
}

int32_t ea_softmax_run(const ea_call *call) {
    const ea_tensor *x = call->inputs[0];
    return run_rows((job){.x = floats(x), .to = writable(call->outputs[0])}, x, 1, call, softmax_part);
}

int32_t ea_softmax_grad_run(const ea_call *call) {
    const ea_tensor *gy = call->inputs[0];
    job j = {.gy = floats(gy), .y = floats(call->inputs[1]), .to = writable(call->outputs[0])};
    return run_rows(j, gy, 1, call, softmax_grad_part);
}

static void layer_norm_part(const void *context, ea_share share) {
    const job *j = context;
    range rows = share_of(j->rows, share);
    for (int row = rows.first; row < rows.last; row++) {
        ptrdiff_t start = (ptrdiff_t)row * j->width;
        const float *x = j->x + start;
        float mean = (float)(ea_sum(x, j->width) / j->width);
        float inv_std = (float)(1 / sqrt(ea_spread(x, mean, j->width) / j->width + (double)j->eps));
        if (j->inv_std) j->inv_std[row] = inv_std;
        float *x_hat = j->x_hat ? j->x_hat + start : NULL, *y = j->to ? j->to + start : NULL;
        INDEPENDENT
        for (int i = 0; i < j->width; i++) {
            float value = (x[i] - mean) * inv_std;
            if (x_hat) x_hat[i] = value;
            if (y) y[i] = value * j->scale[i] + j->bias[i];
        }
    }
}

/* Attributes: dims, eps. */
int32_t ea_layer_norm_run(const ea_call *call) {
    const ea_tensor *const *in = call->inputs, *const *out = call->outputs;
    job j = {.x = floats(in[0]), .scale = floats(in[1]), .bias = floats(in[2]), .to = writable(out[0]),
             .x_hat = writable(out[1]), .inv_std = writable(out[2]), .eps = call->attrs[1].f};
    return run_rows(j, in[0], call->attrs[0].i, call, layer_norm_part);
}

/* gx = inv_std * (g - mean(g) - x_hat * mean(g * x_hat)) with g = scale * gy; gx may be gy. */
static void layer_norm_grad_part(const void *context, ea_share share) {
    const job *j = context;
    range rows = share_of(j->rows, share);
    for (int row = rows.first; row < rows.last; row++) {
        ptrdiff_t start = (ptrdiff_t)row * j->width;
        const float *gy = j->gy + start, *x_hat = j->x + start, *scale = j->scale;
        float *gx = j->to + start, inv_std = j->factors[row];
        double along = 0;
        float shift = (float)(ea_dot(gy, scale, j->width) / j->width);
        for (int i = 0; i < j->width; i++) along += (double)(gy[i] * scale[i] - shift) * x_hat[i];
        float slope = (float)(along / j->width);
        INDEPENDENT
        for (int i = 0; i < j->width; i++) gx[i] = inv_std * (gy[i] * scale[i] - shift - x_hat[i] * slope);
    }
}

/* Attribute: dims. */
int32_t ea_layer_norm_input_grad_run(const ea_call *call) {
    const ea_tensor *const *in = call->inputs;
    job j = {.gy = floats(in[0]), .x = floats(in[1]), .factors = floats(in[2]), .scale = floats(in[3]),
             .to = writable(call->outputs[0])};
    return run_rows(j, in[0], call->attrs[0].i, call, layer_norm_grad_part);
}
