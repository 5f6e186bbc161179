/* Policy-gradient losses (Williams 1992): loss_n = mean over time of -advantage * log pi(action). Outputs of a policy
   are (N, A), or (N, T, A) where a sample is a whole episode. */
#include <math.h>

#include "loss.h"

#include "vec.h"

/* Rows of all samples, and what each weighs: advantage / T. */
typedef struct {
    int rows, width, times;
} shape;

static shape shape_of(const ea_tensor *values) {
    shape s = {.width = values->shape[values->rank - 1]};
    s.rows = (int)(elements(values) / s.width);
    s.times = s.rows / values->shape[0];
    return s;
}

int32_t ea_categorical_policy_gradient_run(const ea_call *call) {
    const ea_tensor *const *in = call->inputs;
    const int64_t *actions = in[1]->data;
    shape s = shape_of(in[0]);
    double loss = 0;
    for (int row = 0; row < s.rows; row++) {
        const float *logits = floats(in[0]) + (ptrdiff_t)row * s.width;
        float most = logits[0];
        for (int i = 1; i < s.width; i++)
            if (!(logits[i] <= most)) most = logits[i];
        double norm = 0, advantage = (double)floats(in[2])[row] / s.times;
        for (int i = 0; i < s.width; i++) norm += expf(logits[i] - most);
        loss += (double)floats(in[3])[row / s.times] * advantage * (log(norm) - ((double)logits[actions[row]] - most));
        if (!call->outputs[1]) continue;
        float *gradient = writable(call->outputs[1]) + (ptrdiff_t)row * s.width;
        for (int i = 0; i < s.width; i++)
            gradient[i] = (float)(advantage * (expf(logits[i] - most) / norm - (i == actions[row])));
    }
    if (call->outputs[0]) *writable(call->outputs[0]) = (float)loss;
    return EA_OK;
}

/* (action - mean) / std of element i of a row. */
static double score_of(const ea_tensor *const *in, int row, int i, int width) {
    ptrdiff_t at = (ptrdiff_t)row * width + i;
    return ((double)floats(in[2])[at] - floats(in[0])[at]) * exp(-(double)floats(in[1])[i]);
}

int32_t ea_gaussian_policy_gradient_run(const ea_call *call) {
    const ea_tensor *const *in = call->inputs;
    const float *log_std = floats(in[1]);
    shape s = shape_of(in[0]);
    double loss = 0, constant = 0.5 * log(2 * M_PI) * s.width;
    for (int i = 0; i < s.width; i++) constant += log_std[i];
    for (int row = 0; row < s.rows; row++) {
        double advantage = (double)floats(in[3])[row] / s.times, surprise = constant;
        for (int i = 0; i < s.width; i++) {
            double score = score_of(in, row, i, s.width);
            surprise += 0.5 * score * score;
            if (call->outputs[1])
                writable(call->outputs[1])[(ptrdiff_t)row * s.width + i] = (float)(-advantage * score * exp(-(double)log_std[i]));
        }
        loss += (double)floats(in[4])[row / s.times] * advantage * surprise;
    }
    if (call->outputs[0]) *writable(call->outputs[0]) = (float)loss;
    return EA_OK;
}

int32_t ea_gaussian_log_std_grad_run(const ea_call *call) {
    const ea_tensor *const *in = call->inputs;
    shape s = shape_of(in[0]);
    for (int i = 0; i < s.width; i++) {
        double total = 0;
        for (int row = 0; row < s.rows; row++) {
            double score = score_of(in, row, i, s.width);
            total += (double)floats(in[4])[row / s.times] * floats(in[3])[row] / s.times * (1 - score * score);
        }
        writable(call->outputs[0])[i] += (float)total;
    }
    return EA_OK;
}
