/* Smooth activations and their gradients. Elu: Clevert et al. 2016. Gelu: Hendrycks and Gimpel 2016. Silu: Elfwing et
   al. 2018. HardSwish: Howard et al. 2019. */
#include "smooth.h"

#include "elementary.h"
#include "pointwise.h"

#define TANH_SCALE 0.79788456080286536f /* sqrt(2 / pi) */
#define TANH_CUBE 0.044715f
#define TANH_LARGEST 10.0f /* beyond, the tanh form is x or 0 to the last bit */

/* y = f(x), or gx = gy * f(other); `a` is the operation's first attribute. */
typedef struct {
    const float *x, *gy;
    float *to, a;
    int64_t count;
} job;

INLINE float elu(float x, float alpha) { return x > 0 ? x : alpha * ea_exp_minus_1(x); }
INLINE float elu_slope(float y, float alpha) { return y > 0 ? 1 : y + alpha; }
INLINE float sigmoid(float x, float a) { return (void)a, ea_sigmoid(x); }
INLINE float sigmoid_slope(float y, float a) { return (void)a, y * (1 - y); }
INLINE float hyperbolic(float x, float a) { return (void)a, ea_tanh(x); }
INLINE float hyperbolic_slope(float y, float a) { return (void)a, 1 - y * y; }
INLINE float silu(float x, float a) { return (void)a, x * ea_sigmoid(x); }

INLINE float silu_slope(float x, float a) {
    (void)a;
    float s = ea_sigmoid(x);
    return s * (1 + x * (1 - s));
}

INLINE float hard_swish(float x, float a) {
    (void)a;
    float gate = x + 3;
    gate = gate < 0 ? 0 : gate;
    return x * (gate > 6 ? 6 : gate) / 6;
}

INLINE float hard_swish_slope(float x, float a) {
    (void)a;
    float slope = x / 3 + 0.5f;
    slope = x <= -3 ? 0 : slope;
    return x >= 3 ? 1 : slope;
}

/* x * Phi(x) = max(x, 0) - |x|/2 * erfc(|x| / sqrt 2): no digits cancel on the left. */
INLINE float gelu(float x, float a) {
    (void)a;
    float gauss, tail = ea_erfc(magnitude(x) * 0.70710678118654752f, &gauss);
    return (x < 0 ? 0 : x) - 0.5f * magnitude(x) * tail;
}

/* Phi(x) + x * phi(x). */
INLINE float gelu_slope(float x, float a) {
    (void)a;
    float gauss, tail = ea_erfc(magnitude(x) * 0.70710678118654752f, &gauss);
    return 0.5f * (1 + with_sign_of(1 - tail, x)) + x * gauss * 0.39894228040143268f;
}

INLINE float clipped(float x) { return x < -TANH_LARGEST ? -TANH_LARGEST : x > TANH_LARGEST ? TANH_LARGEST : x; }

/* 2u = 2 sqrt(2/pi) (x + 0.044715 x^3). */
INLINE float twice_inner(float x) { return 2 * TANH_SCALE * clipped(x) * (1 + TANH_CUBE * clipped(x) * clipped(x)); }

/* x * sigmoid(2u), which is x * (1 + tanh u) / 2. */
INLINE float gelu_tanh(float x, float a) { return (void)a, x * ea_sigmoid(twice_inner(x)); }

INLINE float gelu_tanh_slope(float x, float a) {
    (void)a;
    float s = ea_sigmoid(twice_inner(x)), inner = clipped(x);
    return s * (1 + inner * (1 - s) * 2 * TANH_SCALE * (1 + 3 * TANH_CUBE * inner * inner));
}

#define DEFINE_PARTS(F)                                                                         \
    static void F##_value_part(const void *context, ea_share share) {                  \
        const job *j = context;                                                                 \
        range r = share_of_elements(j->count, share);                                      \
        INDEPENDENT                                                                             \
        for (int i = r.first; i < r.last; i++) j->to[i] = F(j->x[i], j->a);                     \
    }                                                                                           \
    static void F##_grad_part(const void *context, ea_share share) {                   \
        const job *j = context;                                                                 \
        range r = share_of_elements(j->count, share);                                      \
        INDEPENDENT                                                                             \
        for (int i = r.first; i < r.last; i++) j->to[i] = j->gy[i] * F##_slope(j->x[i], j->a);  \
    }

DEFINE_PARTS(elu)
DEFINE_PARTS(sigmoid)
DEFINE_PARTS(hyperbolic)
DEFINE_PARTS(silu)
DEFINE_PARTS(hard_swish)
DEFINE_PARTS(gelu)
DEFINE_PARTS(gelu_tanh)

enum { WORK = 4 }; /* such an element takes about as long as so many moved ones */

static int32_t run_value(const ea_call *call, ea_body *body) {
    const ea_tensor *x = call->inputs[0];
    job j = {.x = floats(x), .to = writable(call->outputs[0]), .a = call->attrs[0].f, .count = elements(x)};
    ea_parallel(worth_moving(WORK * j.count, call->threads), body, &j);
    return EA_OK;
}

static int32_t run_grad(const ea_call *call, ea_body *body) {
    const ea_tensor *const *in = call->inputs;
    job j = {.gy = floats(in[0]), .x = floats(in[1]), .to = writable(call->outputs[0]), .a = call->attrs[0].f,
             .count = elements(in[0])};
    ea_parallel(worth_moving(WORK * j.count, call->threads), body, &j);
    return EA_OK;
}

int32_t ea_elu_run(const ea_call *call) { return run_value(call, elu_value_part); }
int32_t ea_elu_grad_run(const ea_call *call) { return run_grad(call, elu_grad_part); }
int32_t ea_sigmoid_run(const ea_call *call) { return run_value(call, sigmoid_value_part); }
int32_t ea_sigmoid_grad_run(const ea_call *call) { return run_grad(call, sigmoid_grad_part); }
int32_t ea_tanh_run(const ea_call *call) { return run_value(call, hyperbolic_value_part); }
int32_t ea_tanh_grad_run(const ea_call *call) { return run_grad(call, hyperbolic_grad_part); }
int32_t ea_silu_run(const ea_call *call) { return run_value(call, silu_value_part); }
int32_t ea_silu_grad_run(const ea_call *call) { return run_grad(call, silu_grad_part); }
int32_t ea_hard_swish_run(const ea_call *call) { return run_value(call, hard_swish_value_part); }
int32_t ea_hard_swish_grad_run(const ea_call *call) { return run_grad(call, hard_swish_grad_part); }

/* Attribute: 1 for the tanh form. */
int32_t ea_gelu_run(const ea_call *call) {
    return run_value(call, call->attrs[0].i ? gelu_tanh_value_part : gelu_value_part);
}
int32_t ea_gelu_grad_run(const ea_call *call) {
    return run_grad(call, call->attrs[0].i ? gelu_tanh_grad_part : gelu_grad_part);
}
