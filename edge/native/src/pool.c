/* Max pooling with the place of the maximum in 2, 4, 8 or 32 bits, and its gradient. */
#include <math.h>

#include "pool.h"

#include "pointwise.h"
#include "window.h"

/* Threads share channels in pieces of 8, whole bytes of the packed places. */
enum { CHANNELS = 8 };
enum { KERNEL = 0, POOL_STRIDE = 2, POOL_PAD = 4 };

typedef struct {
    ea_axis rows, columns;
    int samples, channels, bits;
    const float *from;
    float *to;
    void *places;
    int64_t place_bytes; /* of one sample */
    char *workspace;
    int64_t workspace_bytes;
} job;

static int taps(const job *j) { return j->rows.kernel * j->columns.kernel; }
static int outputs(const job *j) { return j->rows.out * j->columns.out; }
static int inputs(const job *j) { return j->rows.size * j->columns.size; }

static int place_bits(int count) {
    if (count <= 16) return count <= 4 ? 2 : 4;
    return count <= 256 ? 8 : 32;
}

/* Attributes: kernel, strides, pads (begins, ends). */
static job make_job(const ea_tensor *x, const ea_call *call) {
    job j = {.samples = x->shape[0], .channels = x->shape[1]};
    for (int axis = 0; axis < 2; axis++) {
        ea_axis *a = axis ? &j.columns : &j.rows;
        int at = x->rank - 2 + axis;
        a->size = at < 2 ? 1 : x->shape[at];
        a->kernel = call->attrs[KERNEL + axis].i;
        a->stride = call->attrs[POOL_STRIDE + axis].i;
        a->pad = call->attrs[POOL_PAD + axis].i;
        a->dilation = 1;
        a->out = (a->size + a->pad + call->attrs[POOL_PAD + 2 + axis].i - a->kernel) / a->stride + 1;
    }
    j.bits = place_bits(taps(&j));
    j.place_bytes = ((int64_t)j.channels * outputs(&j) * j.bits + 7) / 8;
    return j;
}

/* A packed place is added to a zeroed byte. */
INLINE void put_place(const job *j, int sample, int64_t at, int tap) {
    uint8_t *places = (uint8_t *)j->places + sample * j->place_bytes;
    if (j->bits == 32) ((int32_t *)j->places)[sample * (int64_t)j->channels * outputs(j) + at] = tap;
    else if (j->bits == 8) places[at] = (uint8_t)tap;
    else places[at * j->bits / 8] |= (uint8_t)(tap << at * j->bits % 8);
}

INLINE int get_place(const job *j, int sample, int64_t at) {
    const uint8_t *places = (const uint8_t *)j->places + sample * j->place_bytes;
    if (j->bits == 32) return ((const int32_t *)j->places)[sample * (int64_t)j->channels * outputs(j) + at];
    if (j->bits == 8) return places[at];
    return places[at * j->bits / 8] >> at * j->bits % 8 & ((1 << j->bits) - 1);
}

/* The first maximum of a window; NaN counts as a maximum, its place does not change. */
INLINE float window_maximum(const job *j, const float *map, int row, int column, int *place) {
    float best = -INFINITY;
    *place = 0;
    int y = row * j->rows.stride - j->rows.pad, x = column * j->columns.stride - j->columns.pad;
    for (int i = larger(0, -y); i < smaller(j->rows.kernel, j->rows.size - y); i++)
        for (int k = larger(0, -x); k < smaller(j->columns.kernel, j->columns.size - x); k++) {
            float value = map[(y + i) * j->columns.size + x + k];
            if (value > best) *place = i * j->columns.kernel + k;
            if (value > best || value != value) best = value;
        }
    return best;
}

/* The same for the window nearly every network has: 2x2 every 2, no padding. */
INLINE float pair_maximum(const float *top, const float *bottom, int *place) {
    float best = -INFINITY;
    *place = 0;
    const float values[4] = {top[0], top[1], bottom[0], bottom[1]};
    for (int t = 0; t < 4; t++) {
        *place = values[t] > best ? t : *place;
        best = values[t] > best || values[t] != values[t] ? values[t] : best;
    }
    return best;
}

static int is_pairs(const job *j) {
    const ea_axis *a = &j->rows, *b = &j->columns;
    return a->kernel == 2 && b->kernel == 2 && a->stride == 2 && b->stride == 2 && !a->pad && !b->pad;
}

enum { STRETCH = 256 };

/* One map into `best` and its places; 2x2 windows go through short rows that the compiler can vectorise. */
static void pool_map(const job *j, int sample, int channel, float *best) {
    const float *map = j->from + ((int64_t)sample * j->channels + channel) * inputs(j);
    int width = j->columns.out, pairs = is_pairs(j);
    uint8_t place[STRETCH];
    for (int row = 0; row < j->rows.out; row++)
        for (int start = 0; start < width; start += STRETCH) {
            int count = smaller(STRETCH, width - start);
            float *to = best + row * width + start;
            const float *top = map + (int64_t)2 * row * j->columns.size + 2 * start;
            int64_t at = (int64_t)channel * outputs(j) + row * width + start;
            for (int i = 0; i < count; i++) {
                int tap;
                if (pairs) to[i] = pair_maximum(top + 2 * i, top + j->columns.size + 2 * i, &tap);
                else to[i] = window_maximum(j, map, row, start + i, &tap);
                place[i] = (uint8_t)tap;
                if (j->bits == 32 && j->places) put_place(j, sample, at + i, tap);
            }
            if (j->places && j->bits != 32)
                for (int i = 0; i < count; i++) put_place(j, sample, at + i, place[i]);
        }
}

static void zero_places(const job *j, int sample, range channels) {
    if (!j->places || j->bits >= 8) return;
    int64_t begin = (int64_t)channels.first * outputs(j) * j->bits / 8;
    int64_t end = ((int64_t)channels.last * outputs(j) * j->bits + 7) / 8;
    memset((uint8_t *)j->places + sample * j->place_bytes + begin, 0, (size_t)(end - begin));
}

/* y may lie on the start of x (on one thread): go the way on which no result covers what is still to be read. */
static void pool_part(const void *context, ea_share share) {
    const job *j = context;
    range channels = share_of_pieces(j->channels, CHANNELS, share);
    float *best = (float *)(j->workspace + share.worker * j->workspace_bytes);
    int count = channels.last - channels.first, all = j->samples * count, up = outputs(j) <= inputs(j);
    for (int sample = 0; sample < j->samples; sample++) zero_places(j, sample, channels);
    for (int step = 0; step < all; step++) {
        int at = up ? step : all - 1 - step, sample = at / count, channel = channels.first + at % count;
        pool_map(j, sample, channel, best);
        if (!j->to) continue;
        float *y = j->to + ((int64_t)sample * j->channels + channel) * outputs(j);
        memcpy(y, best, (size_t)outputs(j) * 4);
    }
}

int64_t ea_max_pool_need(const ea_call *call) {
    job j = make_job(call->inputs[0], call);
    return call->threads * aligned_bytes((int64_t)outputs(&j) * 4);
}

int32_t ea_max_pool_run(const ea_call *call) {
    const ea_tensor *x = call->inputs[0];
    job j = make_job(x, call);
    j.from = floats(x), j.to = writable(call->outputs[0]);
    j.places = call->outputs[1] ? call->outputs[1]->data : NULL;
    j.workspace = call->workspace, j.workspace_bytes = aligned_bytes((int64_t)outputs(&j) * 4);
    int threads = j.to == j.from ? 1 : worth_moving(elements(x), call->threads);
    ea_parallel(threads, pool_part, &j);
    return EA_OK;
}

static void route_map(const job *j, int sample, int channel) {
    int64_t map = (int64_t)sample * j->channels + channel;
    const float *gy = j->from + map * outputs(j);
    float *gx = j->to + map * inputs(j);
    memset(gx, 0, (size_t)inputs(j) * 4);
    for (int row = 0, at = 0; row < j->rows.out; row++)
        for (int column = 0; column < j->columns.out; column++, at++) {
            int tap = get_place(j, sample, (int64_t)channel * outputs(j) + at);
            int y = row * j->rows.stride - j->rows.pad + tap / j->columns.kernel;
            int x = column * j->columns.stride - j->columns.pad + tap % j->columns.kernel;
            if ((unsigned)y < (unsigned)j->rows.size && (unsigned)x < (unsigned)j->columns.size)
                gx[y * j->columns.size + x] += gy[at];
        }
}

static void route_part(const void *context, ea_share share) {
    const job *j = context;
    range channels = share_of_pieces(j->channels, CHANNELS, share);
    for (int sample = 0; sample < j->samples; sample++)
        for (int channel = channels.first; channel < channels.last; channel++) route_map(j, sample, channel);
}

int32_t ea_max_pool_grad_run(const ea_call *call) {
    const ea_tensor *gy = call->inputs[0], *gx = call->outputs[0];
    job j = make_job(gx, call);
    j.from = floats(gy), j.to = writable(gx), j.places = call->inputs[1]->data;
    ea_parallel(worth_moving(elements(gx), call->threads), route_part, &j);
    return EA_OK;
}
