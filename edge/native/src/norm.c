/* Group normalisation and its input gradient, group by group: two passes for the moments, one that writes. */
#include <math.h>

#include "pointwise.h"
#include "sums.h"

typedef struct {
    const float *x, *scale, *bias, *gy, *x_hat, *factors;
    float *y, *normalised, *inv_std, *gx;
    int groups, channels, samples; /* channels of a group */
    int64_t plane;
    float eps;
} job;

static int64_t group_size(const job *j) { return j->channels * j->plane; }

/* x_hat and y (each may be NULL, either may be x) of one channel. */
INLINE void write_channel(const float *x, int64_t count, float mean, float inv_std, float scale, float bias, float *x_hat,
                   float *y) {
    INDEPENDENT
    for (int64_t i = 0; i < count; i++) {
        float value = (x[i] - mean) * inv_std;
        if (x_hat) x_hat[i] = value;
        if (y) y[i] = value * scale + bias;
    }
}

static void normalise(const job *j, int at) {
    int64_t start = at * group_size(j), count = group_size(j);
    const float *x = j->x + start;
    float mean = (float)(ea_sum(x, count) / (double)count);
    double variance = ea_spread(x, mean, count) / (double)count;
    float inv_std = (float)(1 / sqrt(variance + (double)j->eps));
    if (j->inv_std) j->inv_std[at] = inv_std;
    for (int c = 0; c < j->channels; c++) {
        int64_t from = start + c * j->plane;
        int channel = at % j->groups * j->channels + c;
        float scale = j->scale[channel], bias = j->bias[channel];
        float *x_hat = j->normalised ? j->normalised + from : NULL, *y = j->y ? j->y + from : NULL;
        const float *source = j->x + from;
        if (x_hat && y) write_channel(source, j->plane, mean, inv_std, scale, bias, x_hat, y);
        else if (y) write_channel(source, j->plane, mean, inv_std, scale, bias, NULL, y);
        else write_channel(source, j->plane, mean, inv_std, scale, bias, x_hat, NULL);
    }
}

static void forward_part(const void *context, ea_share share) {
    const job *j = context;
    range groups = share_of(j->samples * j->groups, share);
    for (int at = groups.first; at < groups.last; at++) normalise(j, at);
}

static job make_job(const ea_tensor *x, const ea_call *call) {
    int groups = call->attrs[0].i;
    return (job){.groups = groups, .channels = x->shape[1] / groups, .samples = x->shape[0],
                 .plane = sample_elements(x) / x->shape[1]};
}

/* Attributes: groups, eps. */
int32_t ea_group_norm_run(const ea_call *call) {
    const ea_tensor *const *in = call->inputs, *const *out = call->outputs;
    job j = make_job(in[0], call);
    j.x = floats(in[0]), j.scale = floats(in[1]), j.bias = floats(in[2]);
    j.y = writable(out[0]), j.normalised = writable(out[1]), j.inv_std = writable(out[2]);
    j.eps = call->attrs[1].f;
    ea_parallel(worth_moving(3 * elements(in[0]), call->threads), forward_part, &j);
    return EA_OK;
}

/* gx = inv_std * (g - mean(g) - x_hat * mean(g * x_hat)) with g = scale * gy; gx may be gy. */
static void input_gradient(const job *j, int at) {
    double total = 0, along = 0;
    int64_t start = at * group_size(j), count = group_size(j);
    for (int c = 0; c < j->channels; c++) {
        int64_t from = start + c * j->plane;
        double scale = j->scale[at % j->groups * j->channels + c];
        total += scale * ea_sum(j->gy + from, j->plane);
        along += scale * ea_dot(j->gy + from, j->x_hat + from, j->plane);
    }
    float inv_std = j->factors[at];
    float shift = inv_std * (float)(total / (double)count), slope = inv_std * (float)(along / (double)count);
    for (int c = 0; c < j->channels; c++) {
        int64_t from = start + c * j->plane;
        const float *gy = j->gy + from, *x_hat = j->x_hat + from;
        float *gx = j->gx + from, scale = inv_std * j->scale[at % j->groups * j->channels + c];
        INDEPENDENT
        for (int64_t i = 0; i < j->plane; i++) gx[i] = gy[i] * scale - shift - x_hat[i] * slope;
    }
}

static void gradient_part(const void *context, ea_share share) {
    const job *j = context;
    range groups = share_of(j->samples * j->groups, share);
    for (int at = groups.first; at < groups.last; at++) input_gradient(j, at);
}

/* Attribute: groups. */
int32_t ea_group_norm_input_grad_run(const ea_call *call) {
    const ea_tensor *const *in = call->inputs;
    job j = make_job(in[0], call);
    j.gy = floats(in[0]), j.x_hat = floats(in[1]), j.factors = floats(in[2]), j.scale = floats(in[3]);
    j.gx = writable(call->outputs[0]);
    ea_parallel(worth_moving(3 * elements(in[0]), call->threads), gradient_part, &j);
    return EA_OK;
}
