/* Maps in 8 or 16 bits, channel by channel: a level an element, and the smallest value and the step between levels. */
#include "quantise.h"

#include "pointwise.h"

typedef void writing(const float *x, int64_t count, float low, float step, void *levels);
typedef void reading(const void *levels, int64_t count, float low, float step, float *x);

/* The levels 0..most of one type. Of a step's mantissa the bits of `most` are 0: a level times a step is exact. */
typedef struct {
    uint32_t most;
    writing *write;
    reading *read;
} kind;

typedef struct {
    const float *x;
    float *to;
    char *levels;
    float *ranges;
    int planes;
    int64_t plane, plane_bytes;
    const kind *kind;
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

static float step_of(float span, uint32_t most) {
    float step = span / (float)most;
    uint32_t bits;
    memcpy(&bits, &step, 4);
    bits = (bits + most) & ~most;
    memcpy(&step, &bits, 4);
    return step == 0 ? 1 : step;
}

INLINE uint32_t level_of(float x, float low, float step) {
    const float rounding = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer, the lowest bits of the sum */
    float shifted = (x - low) / step + rounding;
    uint32_t bits;
    memcpy(&bits, &shifted, 4);
    return bits;
}

#define LEVELS(BITS)                                                                                           \
    static void write_##BITS(const float *x, int64_t count, float low, float step, void *levels) {             \
        uint##BITS##_t *to = levels;                                                                           \
        INDEPENDENT                                                                                            \
        for (int64_t i = 0; i < count; i++) to[i] = (uint##BITS##_t)level_of(x[i], low, step);                 \
    }                                                                                                          \
    static void read_##BITS(const void *levels, int64_t count, float low, float step, float *x) {              \
        const uint##BITS##_t *from = levels;                                                                   \
        INDEPENDENT                                                                                            \
        for (int64_t i = 0; i < count; i++) x[i] = low + (float)from[i] * step;                                \
    }
LEVELS(8)
LEVELS(16)

static const kind KINDS[] = {{UINT8_MAX, write_8, read_8}, {UINT16_MAX, write_16, read_16}};

static void quantise_part(const void *context, ea_share share) {
    const job *j = context;
    range planes = share_of(j->planes, share);
    for (int at = planes.first; at < planes.last; at++) {
        const float *x = j->x + at * j->plane;
        float low, span;
        extent(x, j->plane, &low, &span);
        float step = step_of(span, j->kind->most);
        j->ranges[2 * at] = low, j->ranges[2 * at + 1] = step;
        j->kind->write(x, j->plane, low, step, j->levels + at * j->plane_bytes);
    }
}

static void dequantise_part(const void *context, ea_share share) {
    const job *j = context;
    range planes = share_of(j->planes, share);
    for (int at = planes.first; at < planes.last; at++)
        j->kind->read(j->levels + at * j->plane_bytes, j->plane, j->ranges[2 * at], j->ranges[2 * at + 1],
                      j->to + at * j->plane);
}

static job make_job(const ea_tensor *map, const ea_tensor *levels, const ea_tensor *ranges) {
    int planes = map->shape[0] * map->shape[1];
    int64_t plane = elements(map) / planes;
    return (job){.levels = levels->data,
                 .ranges = ranges->data,
                 .planes = planes,
                 .plane = plane,
                 .plane_bytes = plane * levels->item_bytes,
                 .kind = &KINDS[levels->item_bytes == 2]};
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
