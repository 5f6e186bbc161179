#include "sums.h"

#include "parallel.h"
#include "pointwise.h"

/* Sums run in four vectors, so that additions overlap, and in pieces, so that long sums stay exact. */
#define DEFINE_SUM(SIGNATURE, AT)                                                    \
    double SIGNATURE {                                                               \
        double total = 0;                                                            \
        for (int64_t start = 0; start < count; start += SUM_PIECE) {                 \
            int64_t stop = start + SUM_PIECE < count ? start + SUM_PIECE : count;    \
            int64_t i = start;                                                       \
            vec8 sums[4] = {{0}};                                                    \
            for (; i + 32 <= stop; i += 32)                                          \
                for (int v = 0; v < 4; v++) sums[v] += AT(load8, i + 8 * v);         \
            double piece = sum8((sums[0] + sums[1]) + (sums[2] + sums[3]));          \
            for (; i < stop; i++) piece += AT(*, i);                                 \
            total += piece;                                                          \
        }                                                                            \
        return total;                                                                \
    }
#define VALUE(read, i) read(x + (i))
#define PRODUCT(read, i) (read(x + (i)) * read(y + (i)))
#define SQUARE(read, i) ((read(x + (i)) - shift) * (read(x + (i)) - shift))

DEFINE_SUM(ea_sum(const float *x, int64_t count), VALUE)
DEFINE_SUM(ea_dot(const float *x, const float *y, int64_t count), PRODUCT)
DEFINE_SUM(ea_spread(const float *x, float shift, int64_t count), SQUARE)

/* result[c] += sum over samples of weight[n] * fw[n, c] * bw[n, c] * (gy, times x where there is one, summed over
   all axes but the kept ones, which come first (axis 1) or last). */
typedef struct {
    const float *gy, *x, *weight, *fw, *bw;
    float *result;
    int samples, kept;
    int64_t inner; /* elements summed for one kept element of a sample */
} job;

static float factor_of(const job *j, int sample, int c) {
    ptrdiff_t at = (ptrdiff_t)sample * j->kept + c;
    return j->weight[sample] * (j->fw ? j->fw[at] : 1) * (j->bw ? j->bw[at] : 1);
}

static void first_part(const void *context, ea_share share) {
    const job *j = context;
    range channels = share_of(j->kept, share);
    for (int sample = 0; sample < j->samples; sample++)
        for (int c = channels.first; c < channels.last; c++) {
            ptrdiff_t at = ((ptrdiff_t)sample * j->kept + c) * j->inner;
            double total = j->x ? ea_dot(j->gy + at, j->x + at, j->inner) : ea_sum(j->gy + at, j->inner);
            j->result[c] += factor_of(j, sample, c) * (float)total;
        }
}

/* The kept axes are the last: rows are added up in pieces of a few columns. */
static void last_part(const void *context, ea_share share) {
    const job *j = context;
    enum { COLUMNS = 64 };
    range columns = share_of(j->kept, share);
    for (int sample = 0; sample < j->samples; sample++)
        for (int c = columns.first; c < columns.last; c += COLUMNS) {
            int width = smaller(COLUMNS, columns.last - c);
            float total[COLUMNS] = {0};
            for (int64_t row = 0; row < j->inner; row++) {
                ptrdiff_t at = (sample * j->inner + row) * j->kept + c;
                for (int i = 0; i < width; i++) total[i] += j->gy[at + i] * (j->x ? j->x[at + i] : 1);
            }
            for (int i = 0; i < width; i++) j->result[c + i] += factor_of(j, sample, c + i) * total[i];
        }
}

static int32_t run_job(job *j, const ea_call *call) {
    j->result = writable(call->outputs[0]);
    j->kept = (int)elements(call->outputs[0]);
    j->inner = sample_elements(call->inputs[0]) / j->kept;
    j->samples = call->inputs[0]->shape[0];
    int threads = worth_moving(elements(call->inputs[0]), call->threads);
    ea_parallel(threads, call->attrs[0].i == 1 ? first_part : last_part, j);
    return EA_OK;
}

/* Attribute of the three: axis. */
int32_t ea_bias_grad_run(const ea_call *call) {
    const ea_tensor *const *in = call->inputs;
    job j = {.gy = floats(in[0]), .weight = floats(in[1]), .bw = floats(in[2])};
    return run_job(&j, call);
}

int32_t ea_scale_grad_run(const ea_call *call) {
    const ea_tensor *const *in = call->inputs;
    job j = {.gy = floats(in[0]), .x = floats(in[1]), .weight = floats(in[2]), .fw = floats(in[3]),
             .bw = floats(in[4])};
    return run_job(&j, call);
}

/* The channels kept of x are multiplied by fw already. */
int32_t ea_scale_grad_sparse_run(const ea_call *call) {
    const ea_tensor *const *in = call->inputs;
    const float *kept = floats(in[0]), *gy = floats(in[2]);
    const int32_t *index = in[1]->data;
    job j = {.weight = floats(in[3]), .bw = floats(in[4]), .kept = in[2]->shape[1]};
    int64_t inner = sample_elements(in[2]) / j.kept;
    for (int slot = 0; slot < in[0]->shape[0] * in[0]->shape[1]; slot++) {
        int sample = slot / in[0]->shape[1], channel = index[slot];
        if (channel < 0) continue;
        double total = ea_dot(gy + ((ptrdiff_t)sample * j.kept + channel) * inner, kept + slot * inner, inner);
        writable(call->outputs[0])[channel] += factor_of(&j, sample, channel) * (float)total;
    }
    return EA_OK;
}
