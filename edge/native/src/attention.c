/* Meta attention per sample (p-Meta section 3.3, Alg. 1), and the channels it keeps. */
#include <math.h>

#include "attention.h"

#include "sums.h"

#define RMS_FLOOR 1e-12f

enum { RHO = 0, CAP = 1, RMS = 2, AXIS = 3 }; /* attributes; no cap: a negative one */

static void pool_channels(const float *x, int64_t count, int channels, int axis, float *pooled) {
    int64_t inner = count / channels;
    for (int c = 0; c < channels; c++)
        if (axis == 1) pooled[c] = (float)(ea_sum(x + c * inner, inner) / (double)inner);
        else pooled[c] = 0;
    if (axis == 1) return;
    for (int64_t row = 0; row < inner; row++)
        for (int c = 0; c < channels; c++) pooled[c] += x[row * channels + c] / (float)inner;
}

static void normalise_rms(float *pooled, int channels) {
    float rms = (float)sqrt(ea_dot(pooled, pooled, channels) / channels) + RMS_FLOOR;
    for (int c = 0; c < channels; c++) pooled[c] /= rms;
}

/* y = w x + b, negative ones made 0 on request (NaN stays). */
static void affine(const ea_tensor *w, const ea_tensor *b, const float *x, int rectify, float *y) {
    for (int o = 0; o < w->shape[0]; o++) {
        float value = (float)ea_dot(floats(w) + (ptrdiff_t)o * w->shape[1], x, w->shape[1]) + floats(b)[o];
        y[o] = rectify && value < 0 ? 0 : value;
    }
}

static void softmax(float *values, int count) {
    float most = values[0];
    for (int i = 1; i < count; i++)
        if (values[i] > most) most = values[i];
    double total = 0;
    for (int i = 0; i < count; i++) total += values[i] = expf(values[i] - most);
    for (int i = 0; i < count; i++) values[i] /= (float)total;
}

/* Make the smallest entries 0: as few as sum up to rho, at least channels - cap, never all. Among equals the lower
   index goes first. `order` is workspace. */
static void clip(float *pi, int channels, float rho, int cap, int32_t *order) {
    for (int i = 0; i < channels; i++) { /* insertion sort: stable, in place */
        int at = i;
        while (at > 0 && pi[order[at - 1]] > pi[i]) {
            order[at] = order[at - 1];
            at--;
        }
        order[at] = i;
    }
    int dropped = 0;
    float total = 0;
    while (rho > 0 && dropped < channels && total < rho) total += pi[order[dropped++]];
    if (cap >= 0) dropped = dropped > channels - cap ? dropped : channels - cap;
    if (dropped > channels - 1) dropped = channels - 1;
    for (int i = 0; i < dropped; i++) pi[order[i]] = 0;
}

int64_t ea_channel_attention_need(const ea_call *call) {
    const ea_tensor *w1 = call->inputs[1];
    return 4 * ((int64_t)2 * w1->shape[1] + w1->shape[0]);
}

int32_t ea_channel_attention_run(const ea_call *call) {
    const ea_tensor *const *in = call->inputs, *w1 = in[1], *gamma = call->outputs[0];
    int channels = w1->shape[1], hidden = w1->shape[0];
    float *pooled = call->workspace, *inner = pooled + channels;
    int32_t *order = (int32_t *)(inner + hidden);
    for (int sample = 0; sample < in[0]->shape[0]; sample++) {
        int64_t count = sample_elements(in[0]);
        float *pi = writable(gamma) + (ptrdiff_t)sample * channels;
        const float *keep = in[5] ? floats(in[5]) + (ptrdiff_t)sample * channels : NULL;
        pool_channels(floats(in[0]) + sample * count, count, channels, call->attrs[AXIS].i, pooled);
        if (call->attrs[RMS].i) normalise_rms(pooled, channels);
        affine(w1, in[2], pooled, 1, inner);
        affine(in[3], in[4], inner, 0, pi);
        softmax(pi, channels);
        if (!keep) clip(pi, channels, call->attrs[RHO].f, call->attrs[CAP].i, order);
        else
            for (int c = 0; c < channels; c++) pi[c] *= keep[c];
        float scale = (float)(channels / ea_sum(pi, channels));
        for (int c = 0; c < channels; c++) pi[c] *= scale;
    }
    return EA_OK;
}

/* Whether all are finite; with any other the first `cap` channels are kept, for the check of the gradient to find. */
static int all_finite(const float *values, int count) {
    int finite = 1;
    for (int i = 0; i < count; i++) finite &= isfinite(values[i]) != 0;
    return finite;
}

int32_t ea_select_channels_run(const ea_call *call) {
    const ea_tensor *x = call->inputs[0], *kept = call->outputs[0];
    int channels = x->shape[1], cap = kept->shape[1];
    int64_t plane = sample_elements(x) / channels;
    for (int sample = 0; sample < x->shape[0]; sample++) {
        const float *gamma = floats(call->inputs[1]) + (ptrdiff_t)sample * channels;
        int32_t *index = (int32_t *)call->outputs[1]->data + (ptrdiff_t)sample * cap;
        float *to = writable(kept) + (ptrdiff_t)sample * cap * plane;
        int slots = 0, finite = all_finite(gamma, channels);
        for (int c = 0; c < channels; c++) {
            if (finite ? gamma[c] == 0 : c >= cap) continue;
            if (slots == cap) return EA_TOO_MANY_CHANNELS;
            const float *map = floats(x) + ((ptrdiff_t)sample * channels + c) * plane;
            for (int64_t i = 0; i < plane; i++) to[slots * plane + i] = map[i] * gamma[c];
            index[slots++] = c;
        }
        memset(to + slots * plane, 0, (size_t)((cap - slots) * plane) * 4);
        for (; slots < cap; slots++) index[slots] = -1;
    }
    return EA_OK;
}
