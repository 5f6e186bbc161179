/* Piecewise linear activations with a mask of one bit an element, and the gradient that such masks make. */
#include "pointwise.h"

enum activation { RELU, CLIP, LEAKY_RELU, HARD_SIGMOID };

/* The mask says lower < x < upper. `alpha`, `beta`: of LeakyRelu and HardSigmoid. */
typedef struct {
    const float *from;
    float *to;
    uint8_t *mask;
    int64_t count; /* elements of a sample */
    int samples;
    enum activation what;
    int has_lower, has_upper;
    float lower, upper, alpha, beta;
    float inside, outside;
} job;

/* Bit i of the result is the lowest bit of byte i. */
INLINE uint8_t gathered_bits(uint64_t bytes) { return (uint8_t)((bytes * 0x0102040810204080ULL) >> 56); }

INLINE int is_inside(const job *j, int low, int high, float x) {
    return (!low || x > j->lower) & (!high || x < j->upper);
}

INLINE void write_mask(const job *j, int low, int high, const float *x, int count, uint8_t *mask) {
    int i = 0;
    for (; i + PIECE <= count; i += PIECE) {
        uint8_t inside[PIECE];
        for (int e = 0; e < PIECE; e++) inside[e] = (uint8_t)is_inside(j, low, high, x[i + e]);
        for (int octet = 0; octet < PIECE / 8; octet++) {
            uint64_t bytes;
            memcpy(&bytes, inside + 8 * octet, 8);
            mask[i / 8 + octet] = gathered_bits(bytes);
        }
    }
    for (; i < count; i += 8) {
        int octet = 0;
        for (int e = 0; e < 8 && i + e < count; e++) octet |= is_inside(j, low, high, x[i + e]) << e;
        mask[i / 8] = (uint8_t)octet;
    }
}

/* NaN stays NaN. */
INLINE float activated(const job *j, enum activation what, int low, int high, float x) {
    if (what == RELU) return x < 0 ? 0 : x;
    if (what == LEAKY_RELU) return x <= 0 ? j->alpha * x : x;
    if (what == HARD_SIGMOID) {
        float y = j->alpha * x + j->beta;
        y = y < 0 ? 0 : y;
        return y > 1 ? 1 : y;
    }
    float y = low && x < j->lower ? j->lower : x;
    return high && y > j->upper ? j->upper : y;
}

INLINE void write_values(const job *j, enum activation what, int low, int high, const float *x, int count, float *y) {
    INDEPENDENT
    for (int i = 0; i < count; i++) y[i] = activated(j, what, low, high, x[i]);
}

static void write_range(const job *j, const float *x, int count, uint8_t *mask, float *y) {
    if (mask) {
        if (!j->has_upper) write_mask(j, j->has_lower, 0, x, count, mask);
        else if (j->has_lower) write_mask(j, 1, 1, x, count, mask);
        else write_mask(j, 0, 1, x, count, mask);
    }
    if (!y) return;
    if (j->what == RELU) write_values(j, RELU, 0, 0, x, count, y);
    else if (j->what == LEAKY_RELU) write_values(j, LEAKY_RELU, 0, 0, x, count, y);
    else if (j->what == HARD_SIGMOID) write_values(j, HARD_SIGMOID, 0, 0, x, count, y);
    else write_values(j, CLIP, j->has_lower, j->has_upper, x, count, y);
}

static void forward_part(const void *context, ea_share share) {
    const job *j = context;
    int64_t mask_bytes = (j->count + 7) / 8;
    range r = share_of_elements(j->count, share);
    for (int sample = 0; sample < j->samples; sample++) {
        int64_t at = sample * j->count + r.first;
        uint8_t *mask = j->mask ? j->mask + sample * mask_bytes + r.first / 8 : NULL;
        write_range(j, j->from + at, r.last - r.first, mask, j->to ? j->to + at : NULL);
    }
}

static int32_t run_forward(const ea_call *call, job j) {
    const ea_tensor *x = call->inputs[0], *mask = call->outputs[1];
    j.from = floats(x), j.to = writable(call->outputs[0]), j.mask = mask ? mask->data : NULL;
    j.count = sample_elements(x), j.samples = x->shape[0];
    ea_parallel(worth_moving(elements(x), call->threads), forward_part, &j);
    return EA_OK;
}

int32_t ea_relu_run(const ea_call *call) { return run_forward(call, (job){.what = RELU, .has_lower = 1}); }

/* Attributes: whether there is a lower bound, it, whether there is an upper one, it. */
int32_t ea_clip_run(const ea_call *call) {
    const ea_attr *a = call->attrs;
    return run_forward(call, (job){.what = CLIP, .has_lower = a[0].i, .lower = a[1].f, .has_upper = a[2].i, .upper = a[3].f});
}

/* Attribute: alpha. */
int32_t ea_leaky_relu_run(const ea_call *call) {
    return run_forward(call, (job){.what = LEAKY_RELU, .has_lower = 1, .alpha = call->attrs[0].f});
}

/* Attributes: alpha, beta, lower and upper bound of the slope. */
int32_t ea_hard_sigmoid_run(const ea_call *call) {
    const ea_attr *a = call->attrs;
    return run_forward(call, (job){.what = HARD_SIGMOID, .has_lower = 1, .has_upper = 1, .alpha = a[0].f, .beta = a[1].f,
                                   .lower = a[2].f, .upper = a[3].f});
}

/* By a factor of 0 everything, NaN too, becomes 0. */
INLINE vec8 scaled(vec8 value, float factor) { return factor == 0 ? (vec8){0} : value * factor; }

static void mask_grad_octets(const float *gy, const uint8_t *mask, int count, float inside, float outside, float *gx) {
    const ivec8 bits = {1, 2, 4, 8, 16, 32, 64, 128};
    int i = 0;
    for (; i + 8 <= count; i += 8) {
        ivec8 chosen = (((ivec8){0} + mask[i / 8]) & bits) != 0;
        vec8 value = load8(gy + i);
        ivec8 one = chosen & (ivec8)scaled(value, inside), other = ~chosen & (ivec8)scaled(value, outside);
        store8(gx + i, (vec8)(one | other));
    }
    for (; i < count; i++) {
        float factor = mask[i / 8] >> i % 8 & 1 ? inside : outside;
        gx[i] = factor == 0 ? 0 : gy[i] * factor;
    }
}

static void mask_grad_part(const void *context, ea_share share) {
    const job *j = context;
    int64_t mask_bytes = (j->count + 7) / 8;
    range r = share_of_elements(j->count, share);
    for (int sample = 0; sample < j->samples; sample++) {
        int64_t at = sample * j->count + r.first;
        const uint8_t *mask = j->mask + sample * mask_bytes + r.first / 8;
        mask_grad_octets(j->from + at, mask, r.last - r.first, j->inside, j->outside, j->to + at);
    }
}

/* Attributes: inside, outside. */
int32_t ea_mask_grad_run(const ea_call *call) {
    const ea_tensor *gy = call->inputs[0];
    job j = {.from = floats(gy), .to = writable(call->outputs[0]), .mask = call->inputs[1]->data,
             .count = sample_elements(gy), .samples = gy->shape[0],
             .inside = call->attrs[0].f, .outside = call->attrs[1].f};
    ea_parallel(worth_moving(elements(gy), call->threads), mask_grad_part, &j);
    return EA_OK;
}
