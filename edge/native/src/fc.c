/* The fully connected layer: x (N, ..., I), w (O, I), y (N, ..., O). The axes between are places that share w. */
#include "fc.h"

#include "gemm.h"
#include "parallel.h"

enum { ROWS = 4, SAMPLES = 32, MOST_SLOTS_AT_ONCE = 4 };

typedef struct {
    const float *x, *w, *b, *gy, *sample_weight, *fw, *bw;
    const int32_t *index;
    float *result;
    int samples, places, inputs, outputs, slots; /* places of all samples; of one in the weight gradient */
} job;

/* y[m][o] for m rows of x and n rows of w (both constants where it is inlined): dot products of length I. */
INLINE void dots(const int m, const int n, const job *j, int place, int output) {
    vec total[ROWS][ROWS];
    const float *x = j->x + (ptrdiff_t)place * j->inputs, *w = j->w + (ptrdiff_t)output * j->inputs;
    int depth = j->inputs, k = 0;
#pragma GCC unroll 4
    for (int r = 0; r < m; r++)
#pragma GCC unroll 4
        for (int c = 0; c < n; c++) total[r][c] = (vec){0};
    for (; k + LANES <= depth; k += LANES) {
        vec left[ROWS];
#pragma GCC unroll 4
        for (int r = 0; r < m; r++) left[r] = load(x + (ptrdiff_t)r * depth + k);
#pragma GCC unroll 4
        for (int c = 0; c < n; c++) {
            vec right = load(w + (ptrdiff_t)c * depth + k);
#pragma GCC unroll 4
            for (int r = 0; r < m; r++) total[r][c] += left[r] * right;
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < m; r++)
#pragma GCC unroll 4
        for (int c = 0; c < n; c++) {
            float value = sum(total[r][c]);
            for (int i = k; i < depth; i++) value += x[(ptrdiff_t)r * depth + i] * w[(ptrdiff_t)c * depth + i];
            j->result[(ptrdiff_t)(place + r) * j->outputs + output + c] = value + (j->b ? j->b[output + c] : 0);
        }
}

static void forward_part(const void *context, int thread, int threads) {
    const job *j = context;
    range outputs = part_of(j->outputs, thread, threads);
    for (int o = outputs.first; o < outputs.last; o += ROWS) {
        int whole = o + ROWS <= outputs.last, place = 0;
        if (whole)
            for (; place + ROWS <= j->places; place += ROWS) dots(ROWS, ROWS, j, place, o);
        for (; place < j->places; place++)
            if (whole) dots(1, ROWS, j, place, o);
            else
                for (int i = o; i < outputs.last; i++) dots(1, 1, j, place, i);
    }
}

int32_t ea_fc_run(const ea_call *call) {
    const ea_tensor *x = call->inputs[0], *w = call->inputs[1];
    job j = {.x = floats(x), .w = floats(w), .b = floats(call->inputs[2]), .result = writable(call->outputs[0]),
             .inputs = w->shape[1], .outputs = w->shape[0], .places = (int)(elements(x) / w->shape[1])};
    ea_parallel(ea_worth((int64_t)j.places * j.inputs * j.outputs, call->threads), forward_part, &j);
    return EA_OK;
}

/* Call `tile` for columns first..last of rows of `width` elements, whole tiles, then one that is moved left so that
   it stays inside the row: of it only the last columns count. Narrower rows go column by column (width 1). */
typedef struct {
    int first, columns, skip; /* where the tile starts, its width, and its columns that are done already */
} span;

static span next_span(int done, int first, int last) {
    span s = {done, smaller(TILE_COLUMNS, last - done), 0};
    int width = ea_tile_width(s.columns);
    if (s.columns < width) {
        if (last - first < width) return (span){done, 1, 0};
        s = (span){last - width, width, done - (last - width)};
    }
    return s;
}

/* to (+)= A B for one tile of a row-major C; a column of its own where the span has one only. */
static void span_tile(const ea_run_product *p, span s, int rows, float *c, ptrdiff_t c_row, const float *scale,
                      const float *column_scale, int add) {
    float tile[TILE_ROWS * WIDEST_TILE];
    if (s.columns == 1) {
        for (int r = 0; r < rows; r++) {
            tile[r * WIDEST_TILE] = 0;
            for (int k = 0; k < p->length; k++)
                tile[r * WIDEST_TILE] += p->a[r * p->row + k * p->step] * p->b[k * p->b_row];
        }
    } else {
        ea_target to = {tile, WIDEST_TILE, 1, NULL, rows, s.columns, 0};
        ea_tile_runs(p, &to);
    }
    for (int r = 0; r < rows; r++)
        for (int i = s.skip; i < s.columns; i++) {
            float value = tile[r * WIDEST_TILE + i] * (scale ? scale[r] : 1) * (column_scale ? column_scale[i] : 1);
            c[r * c_row + i] = add ? c[r * c_row + i] + value : value;
        }
}

static void input_part(const void *context, int thread, int threads) {
    const job *j = context;
    range columns = part_of(j->inputs, thread, threads);
    for (int block = 0; block < row_blocks(j->places); block++) {
        range r = row_block(j->places, block);
        const float *gy = j->gy + (ptrdiff_t)r.first * j->outputs;
        for (int done = columns.first; done < columns.last;) {
            span s = next_span(done, columns.first, columns.last);
            ea_run_product p = {gy, j->outputs, 0, 1, j->w + s.first, 0, j->inputs, 1, j->outputs};
            float *gx = j->result + (ptrdiff_t)r.first * j->inputs + s.first;
            span_tile(&p, s, r.last - r.first, gx, j->inputs, NULL, NULL, 0);
            done = s.first + s.columns;
        }
    }
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

/* One place a sample: gw rows o... of the samples first..last at once, so that gw is read and written once. */
static void outer_rows(const job *j, int output, int rows, int first, int last) {
    float factor[SAMPLES][ROWS];
    for (int n = first; n < last; n++)
        for (int r = 0; r < rows; r++)
            factor[n - first][r] = factor_of(j, n, output + r) * j->gy[(ptrdiff_t)n * j->outputs + output + r];
    float *gw = j->result + (ptrdiff_t)output * j->inputs;
    for (int i = 0; i < j->inputs; i += LANES) {
        int whole = i + LANES <= j->inputs, width = whole ? LANES : j->inputs - i;
        vec total[ROWS] = {{0}};
        for (int n = first; n < last; n++) {
            const float *x = j->x + (ptrdiff_t)n * j->inputs + i, *fw = j->fw ? j->fw + (ptrdiff_t)n * j->inputs + i : NULL;
            vec value = {0}, scale = {0};
            if (whole) value = load(x);
            else memcpy(&value, x, (size_t)width * 4);
            if (fw) {
                if (whole) scale = load(fw);
                else memcpy(&scale, fw, (size_t)width * 4);
                value *= scale;
            }
            for (int r = 0; r < rows; r++) total[r] += factor[n - first][r] * value;
        }
        for (int r = 0; r < rows; r++) {
            float *to = gw + (ptrdiff_t)r * j->inputs + i;
            if (whole) store(to, load(to) + total[r]);
            else
                for (int e = 0; e < width; e++) to[e] += total[r][e];
        }
    }
}

/* Several places a sample: per sample the product over them, weighed and added. */
static void product_rows(const job *j, int sample, int output, int rows) {
    float scale[TILE_ROWS];
    for (int r = 0; r < rows; r++) scale[r] = factor_of(j, sample, output + r);
    const float *gy = j->gy + (ptrdiff_t)sample * j->places * j->outputs + output;
    const float *x = j->x + (ptrdiff_t)sample * j->places * j->inputs;
    const float *fw = j->fw ? j->fw + (ptrdiff_t)sample * j->inputs : NULL;
    for (int done = 0; done < j->inputs;) {
        span s = next_span(done, 0, j->inputs);
        ea_run_product p = {gy, 1, 0, j->outputs, x + s.first, 0, j->inputs, 1, j->places};
        float *gw = j->result + (ptrdiff_t)output * j->inputs + s.first;
        span_tile(&p, s, rows, gw, j->inputs, scale, fw ? fw + s.first : NULL, 1);
        done = s.first + s.columns;
    }
}

static void weight_part(const void *context, int thread, int threads) {
    const job *j = context;
    range outputs = part_of(j->outputs, thread, threads);
    int count = outputs.last - outputs.first;
    if (j->places == 1) {
        for (int o = outputs.first; o < outputs.last; o += ROWS)
            for (int n = 0; n < j->samples; n += SAMPLES)
                outer_rows(j, o, smaller(ROWS, outputs.last - o), n, smaller(n + SAMPLES, j->samples));
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

static void sparse_part(const void *context, int thread, int threads) {
    const job *j = context;
    range outputs = part_of(j->outputs, thread, threads);
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
