/* Losses of predictions against given answers, with the gradient of each sample's own, unweighted loss. */
#include <math.h>

#include "loss.h"

#include "sums.h"

/* Attribute: label smoothing. Classes whose mask is 0 take no part. Exponentials are computed again for the gradient:
   no workspace. */
int32_t ea_softmax_cross_entropy_run(const ea_call *call) {
    const ea_tensor *const *in = call->inputs;
    const int64_t *labels = in[1]->data;
    const float *weight = floats(in[2]), *mask = floats(in[3]), smoothing = call->attrs[0].f;
    int classes = in[0]->shape[1], used = 0;
    for (int c = 0; c < classes; c++) used += mask[c] != 0;
    float each = smoothing / (float)larger(1, used);
    double loss = 0;
    for (int sample = 0; sample < in[0]->shape[0]; sample++) {
        const float *logits = floats(in[0]) + (ptrdiff_t)sample * classes;
        float most = -INFINITY;
        for (int c = 0; c < classes; c++)
            if (mask[c] != 0 && !(logits[c] <= most)) most = logits[c];
        double norm = 0, smooth = 0;
        for (int c = 0; c < classes; c++)
            if (mask[c] != 0) {
                norm += expf(logits[c] - most);
                smooth += logits[c] - most;
            }
        int label = (int)labels[sample];
        if (smoothing == 0) smooth = 0;
        double own = mask[label] != 0 ? (double)logits[label] - most : -INFINITY;
        loss += (double)weight[sample] * (log(norm) - (1 - (double)smoothing) * own - (double)each * smooth);
        if (!call->outputs[1]) continue;
        float *gradient = writable(call->outputs[1]) + (ptrdiff_t)sample * classes;
        for (int c = 0; c < classes; c++)
            gradient[c] = mask[c] != 0 ? (float)(expf(logits[c] - most) / norm) - each : 0;
        gradient[label] -= 1 - smoothing;
    }
    if (call->outputs[0]) *writable(call->outputs[0]) = (float)loss;
    return EA_OK;
}

/* loss_n is the mean of (output - target)^2 over the sample's elements. */
int32_t ea_mean_squared_error_run(const ea_call *call) {
    const ea_tensor *const *in = call->inputs;
    int64_t count = sample_elements(in[0]);
    double loss = 0;
    for (int sample = 0; sample < in[0]->shape[0]; sample++) {
        const float *value = floats(in[0]) + sample * count, *target = floats(in[1]) + sample * count;
        double total = 0;
        for (int64_t i = 0; i < count; i++) {
            double difference = (double)value[i] - target[i];
            total += difference * difference;
            if (call->outputs[1]) writable(call->outputs[1])[sample * count + i] = (float)(2 * difference / (double)count);
        }
        loss += (double)floats(in[2])[sample] * total / (double)count;
    }
    if (call->outputs[0]) *writable(call->outputs[0]) = (float)loss;
    return EA_OK;
}
