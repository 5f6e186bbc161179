/* Maps in 8 bits, channel by channel: a byte an element, and the smallest value and the step between levels. */
#include "quantise.h"

#include "pointwise.h"

enum { LEVELS = 255, DROPPED = 0xFF /* mantissa bits of a step: a level times a step is exact, see the reference */ };

typedef struct {
    const float *x;
    float *to;
    uint8_t *bytes;
    float *ranges;
    int planes;
    int64_t plane;
} job;

INLINE vec chosen(ivec which, vec one, vec other) { return (vec)((which & (ivec)one) | (~which & (ivec)other)); }

/* The smallest value and what is between it and the largest; NaN where a value is not finite. */
static void extent(const float *x, int64_t count, float *low, float *span) {
    float least = x[0], most = x[0], odd = 0;
    int64_t i = 0;
    if (count >= LANES) {
        vec lows = load(x), highs = lows, odds = {0};
        for (; i + LANES <= count; i += LANES) {
            vec value = load(x + i);
            lows = chosen(value < lows, value, lows);
            highs = chosen(value > highs, value, highs);
            odds += value - value;
        }
        odd = sum(odds);
        for (int lane = 0; lane < LANES; lane++) {
            least = lows[lane] < least ? lows[lane] : least;
            most = highs[lane] > most ? highs[lane] : most;
        }
    }
    for (; i < count; i++) {
        least = x[i] < least ? x[i] : least;
        most = x[i] > most ? x[i] : most;
        odd += x[i] - x[i];
    }
    *low = least + odd, *span = most - least + odd;
}

static float step_of(float span) {
    float step = span / LEVELS;
    uint32_t bits;
    memcpy(&bits, &step, 4);
    bits = (bits + DROPPED) & ~(uint32_t)DROPPED;
    memcpy(&step, &bits, 4);
    return step == 0 ? 1 : step;
}

static void write_levels(const float *x, int64_t count, float low, float step, uint8_t *bytes) {
    const float rounding = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer, the lowest bits of the sum */
    INDEPENDENT
    for (int64_t i = 0; i < count; i++) {
        float shifted = (x[i] - low) / step + rounding;
        uint32_t bits;
        memcpy(&bits, &shifted, 4);
        bytes[i] = (uint8_t)bits;
    }
}

static void quantise_part(const void *context, ea_share share) {
    const job *j = context;
    range planes = share_of(j->planes, share);
    for (int at = planes.first; at < planes.last; at++) {
        const float *x = j->x + at * j->plane;
        float low, span;
        extent(x, j->plane, &low, &span);
        float step = step_of(span);
        j->ranges[2 * at] = low, j->ranges[2 * at + 1] = step;
        write_levels(x, j->plane, low, step, j->bytes + at * j->plane);
    }
}

static void dequantise_part(const void *context, ea_share share) {
    const job *j = context;
    range planes = share_of(j->planes, share);
    for (int at = planes.first; at < planes.last; at++) {
        const uint8_t *bytes = j->bytes + at * j->plane;
        float *to = j->to + at * j->plane, low = j->ranges[2 * at], step = j->ranges[2 * at + 1];
        INDEPENDENT
        for (int64_t i = 0; i < j->plane; i++) to[i] = low + (float)bytes[i] * step;
    }
}

static job make_job(const ea_tensor *map, const ea_tensor *bytes, const ea_tensor *ranges) {
    int planes = map->shape[0] * map->shape[1];
    return (job){.bytes = bytes->data, .ranges = ranges->data, .planes = planes, .plane = elements(map) / planes};
}

int32_t ea_quantise_run(const ea_call *call) {
    const ea_tensor *x = call->inputs[0];
    job j = make_job(x, call->outputs[0], call->outputs[1]);
    j.x = floats(x);
    ea_parallel(worth_moving(3 * elements(x), call->threads), quantise_part, &j);
    return EA_OK;
}

int32_t ea_dequantise_run(const ea_call *call) {
    const ea_tensor *x = call->outputs[0];
    job j = make_job(x, call->inputs[0], call->inputs[1]);
    j.to = writable(x);
    ea_parallel(worth_moving(elements(x), call->threads), dequantise_part, &j);
    return EA_OK;
}
