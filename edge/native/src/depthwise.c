#include "depthwise.h"

#include "parallel.h"

enum { BUFFER_BYTES = 16384, STEP = 8 };

/* A sliding window over one map, and the padded copy of a strip of it: row r holds, for each remainder u modulo the
   column stride, the elements u, u + stride, ... one after the other, so that every tap reads consecutive elements.
   Rows end in zeros up to a whole vector. */
typedef struct {
    ea_axis rows, columns;
    int strip, pitch; /* output rows of a strip; elements of one remainder of a row */
} window;

static int round_up(int count) { return ceil_div(count, STEP) * STEP; }
static int reach(const ea_axis *a) { return a->dilation * (a->kernel - 1); }
static int strip_input_rows(const window *w) { return (w->strip - 1) * w->rows.stride + reach(&w->rows) + 1; }
static int row_elements(const window *w) { return w->columns.stride * w->pitch; }

static window make_window(ea_axis rows, ea_axis columns) {
    window w = {rows, columns, 1, round_up(columns.out) + reach(&columns) / columns.stride + 1};
    int most = BUFFER_BYTES / 4 / row_elements(&w) - reach(&rows) - 1;
    w.strip = larger(1, smaller(rows.out, most / rows.stride + 1));
    return w;
}

static int has_adjoint(const ea_conv *c) { return c->rows.stride == 1 && c->columns.stride == 1; }

/* The window that gives gx from gy where the stride is 1. */
static window adjoint(const ea_conv *c) {
    ea_axis axes[2] = {c->rows, c->columns};
    for (int i = 0; i < 2; i++) {
        ea_axis a = axes[i];
        axes[i].pad = reach(&a) - a.pad;
        axes[i].size = a.out;
        axes[i].out = a.size;
    }
    return make_window(axes[0], axes[1]);
}

/* Pieces of a thread's workspace: the strip, one row of gy with zeros at its end, weights or vectors of sums by tap, places of
   the taps in the strip. */
typedef struct {
    float *strip, *row, *taps;
    int32_t *place;
} pieces;

static int64_t window_elements(const window *w) {
    int taps = w->rows.kernel * w->columns.kernel;
    return (int64_t)strip_input_rows(w) * row_elements(w) + round_up(w->columns.out) + (STEP + 1) * taps;
}

static pieces carve(const window *w, float *memory) {
    float *row = memory + (ptrdiff_t)strip_input_rows(w) * row_elements(w);
    float *taps = row + round_up(w->columns.out);
    pieces p = {memory, row, taps, (int32_t *)(taps + STEP * w->rows.kernel * w->columns.kernel)};
    for (int i = 0, t = 0; i < w->rows.kernel; i++)
        for (int k = 0; k < w->columns.kernel; k++, t++) {
            int across = k * w->columns.dilation, stride = w->columns.stride;
            p.place[t] = i * w->rows.dilation * row_elements(w) + across % stride * w->pitch + across / stride;
        }
    return p;
}

static int64_t thread_bytes(const ea_conv *c) {
    window forward = make_window(c->rows, c->columns), backward = has_adjoint(c) ? adjoint(c) : forward;
    int64_t a = window_elements(&forward), b = window_elements(&backward);
    return aligned_bytes(4 * (a > b ? a : b));
}

int64_t ea_depthwise_need(const ea_conv *c, int threads) { return threads * thread_bytes(c); }

/* Copy what output rows first... of a strip read. */
static void fill_strip(const window *w, const float *map, int first, float *strip) {
    int stride = w->columns.stride, width = w->columns.size;
    memset(strip, 0, (size_t)strip_input_rows(w) * row_elements(w) * 4);
    for (int r = 0; r < strip_input_rows(w); r++, strip += row_elements(w)) {
        int y = first * w->rows.stride - w->rows.pad + r;
        if (y < 0 || y >= w->rows.size) continue;
        const float *from = map + (ptrdiff_t)y * width;
        for (int u = 0; u < stride; u++) {
            int begin = larger(0, ceil_div(larger(0, w->columns.pad - u), stride)); /* place of the first column >= 0 */
            int x = begin * stride + u - w->columns.pad;
            float *to = strip + u * w->pitch;
            if (stride == 1) {
                int count = smaller(width - x, w->pitch - begin);
                if (count > 0) memcpy(to + begin, from + x, (size_t)count * 4);
            } else
                for (int i = begin; i < w->pitch && x < width; i++, x += stride) to[i] = from[x];
        }
    }
}

/* One output row: y (+)= bias + sum over taps of weight * strip. */
INLINE void correlate_row(const int taps, const float *base, const int32_t *place, const float *weight, float bias,
                          int width, int add, float *y) {
    for (int x = 0; x < width; x += STEP) {
        vec8 total = (vec8){0} + bias;
        for (int t = 0; t < taps; t++) total += weight[t] * load8(base + place[t] + x);
        if (x + STEP <= width) {
            if (add) total += load8(y + x);
            store8(y + x, total);
        } else
            for (int i = 0; x + i < width; i++) y[x + i] = (add ? y[x + i] : 0) + total[i];
    }
}

static void correlate_strip(const window *w, const pieces *p, int first, int last, float bias, int add, float *y) {
    int taps = w->rows.kernel * w->columns.kernel, width = w->columns.out;
    for (int row = first; row < last; row++) {
        const float *base = p->strip + (ptrdiff_t)(row - first) * w->rows.stride * row_elements(w);
        float *to = y + (ptrdiff_t)row * width;
        if (taps == 9) correlate_row(9, base, p->place, p->taps, bias, width, add, to);
        else if (taps == 25) correlate_row(25, base, p->place, p->taps, bias, width, add, to);
        else correlate_row(taps, base, p->place, p->taps, bias, width, add, to);
    }
}

typedef struct {
    ea_conv c;
    window w;
    const float *x, *weight, *bias, *gy, *sample_weight, *fw, *bw;
    float *result;
    char *workspace;
    int64_t workspace_bytes;
} job;

static float *own_workspace(const job *j, int worker) {
    return (float *)(j->workspace + worker * j->workspace_bytes);
}

static void forward_part(const void *context, ea_share share) {
    const job *j = context;
    const ea_conv *c = &j->c;
    pieces p = carve(&j->w, own_workspace(j, share.worker));
    range maps = share_of(c->samples * c->groups, share);
    int taps = taps_of(c), strip = j->w.strip;
    for (int map = maps.first; map < maps.last; map++)
        for (int y = 0; y < c->rows.out; y += strip) {
            fill_strip(&j->w, j->x + (ptrdiff_t)map * plane_of(c), y, p.strip);
            for (int o = 0; o < c->outputs; o++) {
                int output = map % c->groups * c->outputs + o;
                memcpy(p.taps, j->weight + (ptrdiff_t)output * taps, (size_t)taps * 4);
                float *to = j->result + ((ptrdiff_t)map * c->outputs + o) * positions_of(c);
                correlate_strip(&j->w, &p, y, smaller(y + strip, c->rows.out), j->bias ? j->bias[output] : 0, 0, to);
            }
        }
}

/* gx of stride 1: gy with the flipped weights, added over the outputs of a channel. */
static void adjoint_part(const void *context, ea_share share) {
    const job *j = context;
    const ea_conv *c = &j->c;
    pieces p = carve(&j->w, own_workspace(j, share.worker));
    range maps = share_of(c->samples * c->groups, share);
    int taps = taps_of(c), strip = j->w.strip;
    for (int map = maps.first; map < maps.last; map++)
        for (int o = 0; o < c->outputs; o++) {
            const float *weight = j->weight + (ptrdiff_t)(map % c->groups * c->outputs + o) * taps;
            const float *gy = j->gy + ((ptrdiff_t)map * c->outputs + o) * positions_of(c);
            for (int t = 0; t < taps; t++) p.taps[t] = weight[taps - 1 - t];
            for (int y = 0; y < c->rows.size; y += strip) {
                fill_strip(&j->w, gy, y, p.strip);
                float *gx = j->result + (ptrdiff_t)map * plane_of(c);
                correlate_strip(&j->w, &p, y, smaller(y + strip, c->rows.size), 0, o > 0, gx);
            }
        }
}

/* gx of any stride: every tap adds gy times its weight. */
static void scatter_part(const void *context, ea_share share) {
    const job *j = context;
    const ea_conv *c = &j->c;
    range maps = share_of(c->samples * c->groups, share);
    int taps = taps_of(c);
    for (int map = maps.first; map < maps.last; map++) {
        float *gx = j->result + (ptrdiff_t)map * plane_of(c);
        memset(gx, 0, (size_t)plane_of(c) * 4);
        for (int at = 0; at < c->outputs * taps; at++) {
            int o = at / taps, t = at % taps;
            int down = t / c->columns.kernel * c->rows.dilation - c->rows.pad;
            int across = t % c->columns.kernel * c->columns.dilation - c->columns.pad;
            range y = meets(&c->rows, down, 0, c->rows.out), x = meets(&c->columns, across, 0, c->columns.out);
            float weight = j->weight[(ptrdiff_t)(map % c->groups * c->outputs + o) * taps + t];
            for (int row = y.first; row < y.last; row++) {
                const float *gy = j->gy + ((ptrdiff_t)(map * c->outputs + o) * c->rows.out + row) * c->columns.out;
                float *to = gx + (ptrdiff_t)(row * c->rows.stride + down) * c->columns.size + across;
                for (int i = x.first; i < x.last; i++) to[i * c->columns.stride] += weight * gy[i];
            }
        }
    }
}

/* sums[t] (a vector each) += products of a row of gy (zeros at its end) and the strip at `count` taps. */
INLINE void dot_row(const int count, const float *base, const int32_t *place, const float *gy, int width, float *sums) {
    vec8 total[9];
#pragma GCC unroll 9
    for (int t = 0; t < count; t++) total[t] = load8(sums + STEP * t);
    for (int x = 0; x < width; x += STEP) {
        vec8 g = load8(gy + x);
#pragma GCC unroll 9
        for (int t = 0; t < count; t++) total[t] += g * load8(base + place[t] + x);
    }
#pragma GCC unroll 9
    for (int t = 0; t < count; t++) store8(sums + STEP * t, total[t]);
}

static void dot_strip(const job *j, const pieces *p, const float *gy, int first, int last) {
    int taps = taps_of(&j->c), width = j->c.columns.out;
    for (int row = first; row < last; row++) {
        const float *base = p->strip + (ptrdiff_t)(row - first) * j->w.rows.stride * row_elements(&j->w);
        memcpy(p->row, gy + (ptrdiff_t)row * width, (size_t)width * 4);
        int t = 0;
        for (; t + 9 <= taps; t += 9) dot_row(9, base, p->place + t, p->row, width, p->taps + STEP * t);
        for (; t + 5 <= taps; t += 5) dot_row(5, base, p->place + t, p->row, width, p->taps + STEP * t);
        for (; t < taps; t++) dot_row(1, base, p->place + t, p->row, width, p->taps + STEP * t);
    }
}

static void weight_part(const void *context, ea_share share) {
    const job *j = context;
    const ea_conv *c = &j->c;
    pieces p = carve(&j->w, own_workspace(j, share.worker));
    range groups = share_of(c->groups, share);
    int taps = taps_of(c), strip = j->w.strip;
    memset(p.row, 0, (size_t)round_up(c->columns.out) * 4);
    for (int sample = 0; sample < c->samples; sample++)
        for (int at = groups.first * c->outputs; at < groups.last * c->outputs; at++) {
            ptrdiff_t map = (ptrdiff_t)sample * c->groups + at / c->outputs;
            ptrdiff_t output = (ptrdiff_t)sample * c->groups * c->outputs + at;
            memset(p.taps, 0, (size_t)taps * STEP * 4);
            for (int y = 0; y < c->rows.out; y += strip) {
                fill_strip(&j->w, j->x + map * plane_of(c), y, p.strip);
                dot_strip(j, &p, j->gy + output * positions_of(c), y, smaller(y + strip, c->rows.out));
            }
            float factor = j->sample_weight[sample] * (j->bw ? j->bw[output] : 1) * (j->fw ? j->fw[map] : 1);
            for (int t = 0; t < taps; t++) j->result[(ptrdiff_t)at * taps + t] += factor * sum8(load8(p.taps + STEP * t));
        }
}

static int32_t run_job(job *j, const ea_call *call, ea_body *body) {
    const ea_conv *c = &j->c;
    j->workspace = call->workspace;
    j->workspace_bytes = thread_bytes(c);
    j->result = writable(call->outputs[0]);
    int64_t work = (int64_t)c->samples * c->groups * c->outputs * positions_of(c) * taps_of(c);
    ea_parallel(ea_worth(2 * work, call->threads), body, j);
    return EA_OK;
}

int32_t ea_depthwise_run(const ea_call *call) {
    const ea_tensor *const *in = call->inputs;
    ea_conv c = conv_geometry(in[0], in[1], call->attrs);
    job j = {.c = c, .w = make_window(c.rows, c.columns), .x = floats(in[0]), .weight = floats(in[1]),
             .bias = floats(in[2])};
    return run_job(&j, call, forward_part);
}

int32_t ea_depthwise_input_grad_run(const ea_call *call) {
    ea_conv c = conv_geometry(call->outputs[0], call->inputs[1], call->attrs);
    job j = {.c = c, .w = adjoint(&c), .gy = floats(call->inputs[0]), .weight = floats(call->inputs[1])};
    return run_job(&j, call, has_adjoint(&c) ? adjoint_part : scatter_part);
}

int32_t ea_depthwise_weight_grad_run(const ea_call *call) {
    const ea_tensor *const *in = call->inputs;
    ea_conv c = conv_geometry(in[0], call->outputs[0], call->attrs);
    job j = {.c = c, .w = make_window(c.rows, c.columns), .x = floats(in[0]), .gy = floats(in[1]),
             .sample_weight = floats(in[2]), .fw = floats(in[3]), .bw = floats(in[4])};
    return run_job(&j, call, weight_part);
}
