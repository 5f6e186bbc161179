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

static int is_pairs(const job *j) {
    const ea_axis *a = &j->rows, *b = &j->columns;
    return a->kernel == 2 && b->kernel == 2 && a->stride == 2 && b->stride == 2 && !a->pad && !b->pad;
}

/* One step of the maximum: NaN counts as one, its place does not change. */
INLINE void take_maximum(vec4 value, int tap, vec4 *best, ivec4 *place) {
    ivec4 above = value > *best, not_a_number = value != value, taken = above | not_a_number;
    *place = (above & ((ivec4){0} + tap)) | (~above & *place);
    *best = (vec4)((taken & (ivec4)value) | (~taken & (ivec4)*best));
}

/* A row for the window nearly every network has: 2x2 every 2, no padding. */
static void pool_pairs(const float *top, const float *bottom, int count, float *best, uint8_t *places) {
    int i = 0;
    for (; i + 4 <= count; i += 4) {
        vec4 a = load4(top + 2 * i), b = load4(top + 2 * i + 4), c = load4(bottom + 2 * i), d = load4(bottom + 2 * i + 4);
        vec4 most = (vec4){0} - INFINITY;
        ivec4 place = {0};
        take_maximum(SHUFFLE4(a, b, 0, 2, 4, 6), 0, &most, &place);
        take_maximum(SHUFFLE4(a, b, 1, 3, 5, 7), 1, &most, &place);
        take_maximum(SHUFFLE4(c, d, 0, 2, 4, 6), 2, &most, &place);
        take_maximum(SHUFFLE4(c, d, 1, 3, 5, 7), 3, &most, &place);
        store4(best + i, most);
        for (int e = 0; e < 4; e++) places[i + e] = (uint8_t)place[e];
    }
    for (; i < count; i++) {
        const float values[4] = {top[2 * i], top[2 * i + 1], bottom[2 * i], bottom[2 * i + 1]};
        float most = -INFINITY;
        int place = 0;
        for (int t = 0; t < 4; t++) {
            place = values[t] > most ? t : place;
            most = values[t] > most || values[t] != values[t] ? values[t] : most;
        }
        best[i] = most;
        places[i] = (uint8_t)place;
    }
}

/* Put the places of elements at... of a sample; four of 2 bits fill a byte. */
static void put_places(const job *j, int sample, int64_t at, const uint8_t *places, int count) {
    int i = 0;
    if (j->bits == 2) {
        uint8_t *to = (uint8_t *)j->places + sample * j->place_bytes;
        for (; i < count && (at + i) % 4; i++) put_place(j, sample, at + i, places[i]);
        for (; i + 4 <= count; i += 4) {
            uint32_t four;
            memcpy(&four, places + i, 4);
            to[(at + i) / 4] = (uint8_t)((four * 0x01041040U) >> 24);
        }
    }
    for (; i < count; i++) put_place(j, sample, at + i, places[i]);
}

enum { STRETCH = 256 };

/* One map into `best`, and its places. */
static void pool_map(const job *j, int sample, int channel, float *best) {
    const float *map = j->from + ((int64_t)sample * j->channels + channel) * inputs(j);
    int width = j->columns.out, pairs = is_pairs(j);
    uint8_t places[STRETCH];
    for (int row = 0; row < j->rows.out; row++)
        for (int start = 0; start < width; start += STRETCH) {
            int count = smaller(STRETCH, width - start);
            float *to = best + row * width + start;
            const float *top = map + (int64_t)2 * row * j->columns.size + 2 * start;
            int64_t at = (int64_t)channel * outputs(j) + row * width + start;
            if (pairs) pool_pairs(top, top + j->columns.size, count, to, places);
            for (int i = 0; i < count && !pairs; i++) {
                int tap;
                to[i] = window_maximum(j, map, row, start + i, &tap);
                places[i] = (uint8_t)tap;
                if (j->bits == 32 && j->places) put_place(j, sample, at + i, tap);
            }
            if (j->places && j->bits != 32) put_places(j, sample, at, places, count);
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

/* 2x2 windows do not overlap: four of them are routed at once. */
static void route_pairs(const job *j, int sample, int64_t first, const float *gy, float *gx) {
    int width = j->columns.size;
    for (int row = 0; row < j->rows.out; row++) {
        const float *from = gy + row * j->columns.out;
        float *top = gx + (int64_t)2 * row * width, *bottom = top + width;
        int64_t at = first + row * j->columns.out;
        int i = 0;
        for (; i + 4 <= j->columns.out; i += 4) {
            ivec4 place;
            for (int e = 0; e < 4; e++) place[e] = get_place(j, sample, at + i + e);
            ivec4 value = (ivec4)load4(from + i);
            vec4 part[4];
            for (int t = 0; t < 4; t++) part[t] = (vec4)((place == t) & value);
            store4(top + 2 * i, SHUFFLE4(part[0], part[1], 0, 4, 1, 5));
            store4(top + 2 * i + 4, SHUFFLE4(part[0], part[1], 2, 6, 3, 7));
            store4(bottom + 2 * i, SHUFFLE4(part[2], part[3], 0, 4, 1, 5));
            store4(bottom + 2 * i + 4, SHUFFLE4(part[2], part[3], 2, 6, 3, 7));
        }
        for (; i < j->columns.out; i++) {
            int place = get_place(j, sample, at + i);
            for (int t = 0; t < 4; t++) (t < 2 ? top : bottom)[2 * i + t % 2] = place == t ? from[i] : 0;
        }
    }
}

static void route_windows(const job *j, int sample, int64_t first, const float *gy, float *gx) {
    for (int row = 0, at = 0; row < j->rows.out; row++)
        for (int column = 0; column < j->columns.out; column++, at++) {
            int tap = get_place(j, sample, first + at);
            int y = row * j->rows.stride - j->rows.pad + tap / j->columns.kernel;
            int x = column * j->columns.stride - j->columns.pad + tap % j->columns.kernel;
            if ((unsigned)y < (unsigned)j->rows.size && (unsigned)x < (unsigned)j->columns.size)
                gx[y * j->columns.size + x] += gy[at];
        }
}

static void route_map(const job *j, int sample, int channel) {
    int64_t map = (int64_t)sample * j->channels + channel, first = (int64_t)channel * outputs(j);
    const float *gy = j->from + map * outputs(j);
    float *gx = j->to + map * inputs(j);
    memset(gx, 0, (size_t)inputs(j) * 4);
    if (is_pairs(j)) route_pairs(j, sample, first, gy, gx);
    else route_windows(j, sample, first, gy, gx);
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
