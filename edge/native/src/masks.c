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

INLINE vec8 chosen(ivec8 condition, vec8 yes, vec8 no) {
    return (vec8)((condition & (ivec8)yes) | (~condition & (ivec8)no));
}

typedef int8_t octet __attribute__((vector_size(8)));

/* Bit i of the result says whether element i is true (all bits set). */
INLINE uint8_t bits_of(ivec8 truth) {
    octet narrow = __builtin_convertvector(truth, octet);
    uint64_t bytes;
    memcpy(&bytes, &narrow, 8);
    return (uint8_t)(((bytes & 0x0101010101010101ULL) * 0x0102040810204080ULL) >> 56);
}

INLINE ivec8 is_inside(const job *j, int low, int high, vec8 x) {
    ivec8 truth = (ivec8){0} - 1;
    if (low) truth &= x > j->lower;
    if (high) truth &= x < j->upper;
    return truth;
}

/* NaN stays NaN. */
INLINE vec8 activated(const job *j, enum activation what, int low, int high, vec8 x) {
    const vec8 zero = {0};
    if (what == RELU) return chosen(x < 0, zero, x);
    if (what == LEAKY_RELU) return chosen(x <= 0, j->alpha * x, x);
    if (what == HARD_SIGMOID) {
        vec8 y = j->alpha * x + j->beta;
        y = chosen(y < 0, zero, y);
        return chosen(y > 1, zero + 1, y);
    }
    vec8 y = low ? chosen(x < j->lower, zero + j->lower, x) : x;
    return high ? chosen(y > j->upper, zero + j->upper, y) : y;
}

/* The last few elements go through a vector of their own; bits beyond them are 0. */
INLINE void write_octets(const job *j, enum activation what, int low, int high, const float *x, int count, uint8_t *mask,
                         float *y) {
    int i = 0;
    for (; i + 8 <= count; i += 8) {
        vec8 value = load8(x + i);
        if (mask) mask[i / 8] = bits_of(is_inside(j, low, high, value));
        if (y) store8(y + i, activated(j, what, low, high, value));
    }
    if (i == count) return;
    vec8 value = {0};
    size_t bytes = (size_t)(count - i) * 4;
    memcpy(&value, x + i, bytes);
    if (mask) mask[i / 8] = bits_of(is_inside(j, low, high, value)) & (uint8_t)((1 << (count - i)) - 1);
    value = activated(j, what, low, high, value);
    if (y) memcpy(y + i, &value, bytes);
}

static void write_range(const job *j, const float *x, int count, uint8_t *mask, float *y) {
    if (j->what == RELU) write_octets(j, RELU, 1, 0, x, count, mask, y);
    else if (j->what == LEAKY_RELU) write_octets(j, LEAKY_RELU, 1, 0, x, count, mask, y);
    else if (j->what == HARD_SIGMOID) write_octets(j, HARD_SIGMOID, 1, 1, x, count, mask, y);
    else if (!j->has_upper) write_octets(j, CLIP, j->has_lower, 0, x, count, mask, y);
    else if (j->has_lower) write_octets(j, CLIP, 1, 1, x, count, mask, y);
    else write_octets(j, CLIP, 0, 1, x, count, mask, y);
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
        ivec8 truth = (((ivec8){0} + mask[i / 8]) & bits) != 0;
        vec8 value = load8(gy + i);
        store8(gx + i, chosen(truth, scaled(value, inside), scaled(value, outside)));
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
