/* The fully connected layer: x (N, ..., I), w (O, I), y (N, ..., O). The axes between are places that share w. */
#include "fc.h"

#include "dense.h"
#include "gemm.h"
#include "parallel.h"

enum { ROWS = 4, BLOCK = TILE_ROWS, SAMPLES = 32 };

typedef struct {
    const float *x, *w, *b, *gy, *sample_weight, *fw, *bw;
    const int32_t *index;
    float *result;
    int samples, places, inputs, outputs, slots; /* places of all samples; of one in the weight gradient */
} job;

static void forward_part(const void *context, ea_share share) {
    const job *j = context;
    ea_dots d = {j->x, j->w, j->b, j->result, j->places, j->inputs, j->outputs};
    ea_dense_dots(&d, share_of_pieces(j->outputs, ROWS, share));
}

int32_t ea_fc_run(const ea_call *call) {
    const ea_tensor *x = call->inputs[0], *w = call->inputs[1];
    job j = {.x = floats(x), .w = floats(w), .b = floats(call->inputs[2]), .result = writable(call->outputs[0]),
             .inputs = w->shape[1], .outputs = w->shape[0], .places = (int)(elements(x) / w->shape[1])};
    ea_parallel(ea_worth((int64_t)j.places * j.inputs * j.outputs, call->threads), forward_part, &j);
    return EA_OK;
}

static void input_part(const void *context, ea_share share) {
    const job *j = context;
    ea_dense d = {.a = j->gy, .row = j->outputs, .step = 1, .b = j->w, .b_row = j->inputs, .c = j->result,
                  .c_row = j->inputs, .rows = j->places, .depth = j->outputs};
    ea_dense_product(&d, share_of_pieces(j->inputs, TILE_COLUMNS, share));
}

int32_t ea_fc_input_grad_run(const ea_call *call) {
    const ea_tensor *gy = call->inputs[0], *w = call->inputs[1];
    job j = {.gy = floats(gy), .w = floats(w), .result = writable(call->outputs[0]),
             .inputs = w->shape[1], .outputs = w->shape[0], .places = (int)(elements(gy) / w->shape[0])};
    ea_parallel(ea_worth((int64_t)j.places * j.inputs * j.outputs, call->threads), input_part, &j);
    return EA_OK;
}

static float factor_of(const job *j, int sample, int output) {
    return j->sample_weight[sample] * (j->bw ? j->bw[(ptrdiff_t)sample * j->outputs + output] : 1);
}

/* A vector of x, times fw where there is one; of its first `width` elements only. */
INLINE vec weighed(const job *j, int sample, int column, int width) {
    ptrdiff_t at = (ptrdiff_t)sample * j->inputs + column;
    vec x = {0}, fw = {0};
    if (width == LANES) return j->fw ? load(j->x + at) * load(j->fw + at) : load(j->x + at);
    memcpy(&x, j->x + at, (size_t)width * 4);
    if (!j->fw) return x;
    memcpy(&fw, j->fw + at, (size_t)width * 4);
    return x * fw;
}

/* `rows` rows (a constant where it is inlined) of gw += factor (samples, ROWS) times x, one vector of columns. */
INLINE void add_outer(const int rows, const job *j, int output, range samples, const float (*factor)[ROWS], int column,
                      int width) {
    vec total[ROWS];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) total[r] = (vec){0};
    for (int n = samples.first; n < samples.last; n++) {
        vec x = weighed(j, n, column, width);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) total[r] += factor[n - samples.first][r] * x;
    }
    for (int r = 0; r < rows; r++) {
        float *to = j->result + (ptrdiff_t)(output + r) * j->inputs + column;
        if (width == LANES) store(to, load(to) + total[r]);
        else
            for (int e = 0; e < width; e++) to[e] += total[r][e];
    }
}

/* One place a sample: rows of gw for many samples at once, so that gw is read and written once. */
static void outer_rows(const job *j, int output, int rows, range samples) {
    float factor[SAMPLES][ROWS];
    for (int n = samples.first; n < samples.last; n++)
        for (int r = 0; r < rows; r++)
            factor[n - samples.first][r] = factor_of(j, n, output + r) * j->gy[(ptrdiff_t)n * j->outputs + output + r];
    const float(*factors)[ROWS] = (const float(*)[ROWS])factor;
    for (int i = 0; i < j->inputs; i += LANES) {
        int width = smaller(LANES, j->inputs - i);
        if (rows == ROWS && width == LANES) add_outer(ROWS, j, output, samples, factors, i, LANES);
        else add_outer(rows, j, output, samples, factors, i, width);
    }
}

/* Several places a sample: per sample the product over them, weighed and added. */
static void product_rows(const job *j, int sample, int output, int rows) {
    float scale[BLOCK];
    for (int r = 0; r < rows; r++) scale[r] = factor_of(j, sample, output + r);
    ea_dense d = {.a = j->gy + (ptrdiff_t)sample * j->places * j->outputs + output,
                  .b = j->x + (ptrdiff_t)sample * j->places * j->inputs,
                  .c = j->result + (ptrdiff_t)output * j->inputs,
                  .scale = scale,
                  .column_scale = j->fw ? j->fw + (ptrdiff_t)sample * j->inputs : NULL,
                  .row = 1, .step = j->outputs, .b_row = j->inputs, .c_row = j->inputs,
                  .rows = rows, .depth = j->places, .add = 1};
    ea_dense_product(&d, (range){0, j->inputs});
}

static void weight_part(const void *context, ea_share share) {
    const job *j = context;
    range outputs = share_of(j->outputs, share);
    int count = outputs.last - outputs.first;
    if (j->places == 1) {
        for (int o = outputs.first; o < outputs.last; o += ROWS)
            for (int n = 0; n < j->samples; n += SAMPLES)
                outer_rows(j, o, smaller(ROWS, outputs.last - o), (range){n, smaller(n + SAMPLES, j->samples)});
        return;
    }
    for (int sample = 0; sample < j->samples; sample++)
        for (int block = 0; block < row_blocks(count); block++) {
            range r = row_block(count, block);
            product_rows(j, sample, outputs.first + r.first, r.last - r.first);
        }
}

int32_t ea_fc_weight_grad_run(const ea_call *call) {
    const ea_tensor *const *in = call->inputs, *gw = call->outputs[0];
    job j = {.x = floats(in[0]), .gy = floats(in[1]), .sample_weight = floats(in[2]), .fw = floats(in[3]),
             .bw = floats(in[4]), .result = writable(gw), .samples = in[0]->shape[0], .inputs = gw->shape[1],
             .outputs = gw->shape[0], .places = (int)(sample_elements(in[0]) / gw->shape[1])};
    int64_t work = (int64_t)j.samples * j.places * j.inputs * j.outputs;
    ea_parallel(ea_worth(work, call->threads), weight_part, &j);
    return EA_OK;
}

static void sparse_part(const void *context, ea_share share) {
    const job *j = context;
    range outputs = share_of(j->outputs, share);
    for (int sample = 0; sample < j->samples; sample++) {
        const float *kept = j->x + (ptrdiff_t)sample * j->slots;
        const int32_t *index = j->index + (ptrdiff_t)sample * j->slots;
        for (int o = outputs.first; o < outputs.last; o++) {
            float factor = factor_of(j, sample, o) * j->gy[(ptrdiff_t)sample * j->outputs + o];
            float *gw = j->result + (ptrdiff_t)o * j->inputs;
            for (int s = 0; s < j->slots && index[s] >= 0; s++) gw[index[s]] += factor * kept[s];
        }
    }
}

int32_t ea_fc_weight_grad_sparse_run(const ea_call *call) {
    const ea_tensor *const *in = call->inputs, *gw = call->outputs[0];
    job j = {.x = floats(in[0]), .index = in[1]->data, .gy = floats(in[2]), .sample_weight = floats(in[3]),
             .bw = floats(in[4]), .result = writable(gw), .samples = in[0]->shape[0], .inputs = gw->shape[1],
             .outputs = gw->shape[0], .slots = in[0]->shape[1]};
    int64_t work = (int64_t)j.samples * j.slots * j.outputs;
    ea_parallel(ea_worth(work, call->threads), sparse_part, &j);
    return EA_OK;
}
