/* ReLU with a mask of one bit an element, and the gradient that such a mask makes. */
#include "pointwise.h"

typedef struct {
    const float *from;
    float *to;
    uint8_t *mask;
    int64_t count; /* elements of a sample */
    int samples;
    float inside, outside;
} job;

/* Bit i of the result is the lowest bit of byte i. */
INLINE uint8_t gathered_bits(uint64_t bytes) { return (uint8_t)((bytes * 0x0102040810204080ULL) >> 56); }

static void write_mask(const float *x, int count, uint8_t *mask) {
    int i = 0;
    for (; i + PIECE <= count; i += PIECE) {
        uint8_t positive[PIECE];
        for (int e = 0; e < PIECE; e++) positive[e] = x[i + e] > 0;
        for (int octet = 0; octet < PIECE / 8; octet++) {
            uint64_t bytes;
            memcpy(&bytes, positive + 8 * octet, 8);
            mask[i / 8 + octet] = gathered_bits(bytes);
        }
    }
    for (; i < count; i += 8) {
        int octet = 0;
        for (int e = 0; e < 8 && i + e < count; e++) octet |= (x[i + e] > 0) << e;
        mask[i / 8] = (uint8_t)octet;
    }
}

static void relu_part(const void *context, int thread, int threads) {
    const job *j = context;
    int64_t mask_bytes = (j->count + 7) / 8;
    range r = own_elements(j->count, thread, threads);
    for (int sample = 0; sample < j->samples; sample++) {
        const float *x = j->from + sample * j->count + r.first;
        if (j->mask) write_mask(x, r.last - r.first, j->mask + sample * mask_bytes + r.first / 8);
        if (!j->to) continue;
        float *y = j->to + sample * j->count + r.first;
        INDEPENDENT
        for (int i = 0; i < r.last - r.first; i++) y[i] = x[i] < 0 ? 0 : x[i]; /* NaN stays */
    }
}

int32_t ea_relu_run(const ea_call *call) {
    const ea_tensor *x = call->inputs[0], *mask = call->outputs[1];
    job j = {.from = floats(x), .to = writable(call->outputs[0]), .mask = mask ? mask->data : NULL,
             .count = sample_elements(x), .samples = x->shape[0]};
    ea_parallel(worth_moving(elements(x), call->threads), relu_part, &j);
    return EA_OK;
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

static void mask_grad_part(const void *context, int thread, int threads) {
    const job *j = context;
    int64_t mask_bytes = (j->count + 7) / 8;
    range r = own_elements(j->count, thread, threads);
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
