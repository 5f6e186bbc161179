/* y[n, c] = -|F_c (x_n - m_c)|^2 of vectors x (N, D), class means m (C, D) and factors F (C, D, D). */
#include "mahalanobis.h"

#include "parallel.h"
#include "sums.h"

enum { BLOCK = 4 }; /* samples that share the reading of a factor */

typedef struct {
    const float *x, *means, *factors;
    float *y, *away;
    int samples, classes, width;
} job;

/* `away`: x - m of up to BLOCK samples. */
static void one_class(const job *j, int class, float *away) {
    const float *mean = j->means + (ptrdiff_t)class * j->width;
    const float *factor = j->factors + (ptrdiff_t)class * j->width * j->width;
    for (int first = 0; first < j->samples; first += BLOCK) {
        int count = smaller(BLOCK, j->samples - first);
        double total[BLOCK] = {0};
        for (int n = 0; n < count; n++)
            for (int i = 0; i < j->width; i++)
                away[(ptrdiff_t)n * j->width + i] = j->x[(ptrdiff_t)(first + n) * j->width + i] - mean[i];
        for (int i = 0; i < j->width; i++)
            for (int n = 0; n < count; n++) {
                double part = ea_dot(factor + (ptrdiff_t)i * j->width, away + (ptrdiff_t)n * j->width, j->width);
                total[n] += part * part;
            }
        for (int n = 0; n < count; n++) j->y[(ptrdiff_t)(first + n) * j->classes + class] = (float)-total[n];
    }
}

static void classes_part(const void *context, ea_share share) {
    const job *j = context;
    range classes = share_of(j->classes, share);
    float *away = j->away + (ptrdiff_t)share.worker * BLOCK * j->width;
    for (int class = classes.first; class < classes.last; class++) one_class(j, class, away);
}

int64_t ea_mahalanobis_need(const ea_call *call) {
    const ea_tensor *x = call->inputs[0];
    return (int64_t)call->threads * BLOCK * x->shape[1] * 4;
}

int32_t ea_mahalanobis_run(const ea_call *call) {
    const ea_tensor *x = call->inputs[0], *factors = call->inputs[2];
    job j = {.x = floats(x), .means = floats(call->inputs[1]), .factors = floats(factors),
             .y = writable(call->outputs[0]), .away = call->workspace, .samples = x->shape[0],
             .classes = factors->shape[0], .width = x->shape[1]};
    ea_parallel(ea_worth(x->shape[0] * elements(factors), call->threads), classes_part, &j);
    return EA_OK;
}
