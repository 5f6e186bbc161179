/* Convolution and its input gradient as matrix products with gathered columns (conv_core.c).

   The input gradient is a convolution of gy with the transposed weight. With a stride s every s-th row and column of
   gx is one such convolution with every s-th tap (a phase), so no products with inserted zeros are made. */
#include "conv.h"

#include "conv_core.h"
#include "depthwise.h"
#include "gemm.h"
#include "parallel.h"
#include "winograd.h"

/* One pass over all samples and groups; the pointers of `core` are those of sample 0 and group 0. */
typedef struct {
    ea_core core;
    ea_blocking blocking;
    int samples, groups, row_parts;
    ptrdiff_t a_group, in_group, out_group; /* steps; a sample's maps follow each other group by group */
    char *workspace;
    int64_t workspace_bytes;
} job;

enum { UNITS_PER_THREAD = 4, LEAST_ROWS = 56 }; /* fewer rows in a part would make packing the panel again too dear */

static int panels_of(const job *j) { return ceil_div(j->core.y.out * j->core.x.out, j->blocking.columns); }

static void do_unit(const job *j, int unit, void *workspace) {
    int panels = panels_of(j), panel = unit % panels, at = unit / panels % (j->samples * j->groups);
    int part = unit / panels / (j->samples * j->groups), group = at % j->groups;
    ea_core core = j->core;
    core.a += group * j->a_group;
    if (core.bias) core.bias += group * core.rows;
    core.in += at * j->in_group;
    core.out += at * j->out_group;
    int first = panel * j->blocking.columns;
    range positions = {first, smaller(first + j->blocking.columns, core.y.out * core.x.out)};
    core_run(&core, &j->blocking, part_of(core.rows, part, j->row_parts), positions, workspace);
}

static void do_part(const void *context, ea_share share) {
    const job *j = context;
    range units = share_of(j->samples * j->groups * j->row_parts * panels_of(j), share);
    for (int u = units.first; u < units.last; u++) do_unit(j, u, j->workspace + share.worker * j->workspace_bytes);
}

static void run_job(job *j, int threads) {
    const ea_core *c = &j->core;
    int64_t work = (int64_t)j->samples * j->groups * c->rows * c->channels * c->y.taps * c->x.taps;
    threads = ea_worth(work * c->y.out * c->x.out, threads);
    int panels = j->samples * j->groups * panels_of(j), wanted = ceil_div(UNITS_PER_THREAD * threads, panels);
    if (threads == 1 || panels >= UNITS_PER_THREAD * threads) j->row_parts = 1;
    else j->row_parts = smaller(c->rows, larger(ceil_div(threads, panels), smaller(wanted, c->rows / LEAST_ROWS)));
    ea_parallel(threads, do_part, j);
}

static ea_core_axis forward_axis(const ea_axis *a, ptrdiff_t weight_step, ptrdiff_t out_step) {
    return (ea_core_axis){a->kernel, -a->pad, a->dilation, a->stride, a->size, a->out, weight_step, out_step};
}

/* The convolution, or its input gradient, as Winograd's algorithm sees it. */
static ea_winograd winograd_of(const ea_conv *c, int turned) {
    ea_tile_axis y = {c->rows.size, c->rows.pad, c->rows.out};
    ea_tile_axis x = {c->columns.size, c->columns.pad, c->columns.out};
    ea_winograd w = {.channels = c->channels, .rows = c->outputs, .turned = turned};
    if (turned) {
        w.channels = c->outputs, w.rows = c->channels;
        y = (ea_tile_axis){c->rows.out, 2 - c->rows.pad, c->rows.size};
        x = (ea_tile_axis){c->columns.out, 2 - c->columns.pad, c->columns.size};
    }
    w.tiling = (ea_tiling){c->samples, y, x};
    return w;
}

static int is_winograd(const ea_conv *c, const ea_winograd *w) { return is_plain_3x3(c) && ea_winograd_wins(w); }

int32_t ea_conv_run(const ea_call *call) {
    const ea_tensor *x = call->inputs[0], *w = call->inputs[1], *y = call->outputs[0];
    ea_conv c = conv_geometry(x, w, call->attrs);
    if (ea_is_depthwise(&c)) return ea_depthwise_run(call);
    ea_winograd fast = winograd_of(&c, 0);
    if (is_winograd(&c, &fast)) {
        fast.in = floats(x), fast.w = floats(w), fast.bias = floats(call->inputs[2]), fast.out = writable(y);
        fast.workspace = call->workspace;
        ea_winograd_run(&fast, call->threads);
        return EA_OK;
    }
    int depth = depth_of(&c), positions = positions_of(&c);
    const float *in = floats(x);
    job j = {.core = {.a = floats(w),
                      .bias = floats(call->inputs[2]),
                      .a_row = depth,
                      .a_channel = taps_of(&c),
                      .rows = c.outputs,
                      .channels = c.channels,
                      .in = in,
                      .in_begin = in,
                      .in_end = in + elements(x),
                      .out = writable(y),
                      .out_row = positions,
                      .y = forward_axis(&c.rows, c.columns.kernel, c.columns.out),
                      .x = forward_axis(&c.columns, 1, 1)},
             .blocking = core_blocking(c.channels, taps_of(&c), positions),
             .samples = c.samples,
             .groups = c.groups,
             .a_group = (ptrdiff_t)c.outputs * depth,
             .in_group = (ptrdiff_t)c.channels * plane_of(&c),
             .out_group = (ptrdiff_t)c.outputs * positions,
             .workspace = call->workspace};
    j.workspace_bytes = core_bytes(&j.blocking, taps_of(&c));
    run_job(&j, call->threads);
    return EA_OK;
}

int64_t ea_conv_need(const ea_call *call) {
    ea_conv c = conv_geometry(call->inputs[0], call->inputs[1], call->attrs);
    if (ea_is_depthwise(&c)) return ea_depthwise_need(&c, call->threads);
    ea_winograd fast = winograd_of(&c, 0);
    if (is_winograd(&c, &fast)) return call->threads * ea_winograd_bytes(&fast);
    ea_blocking b = core_blocking(c.channels, taps_of(&c), positions_of(&c));
    return call->threads * core_bytes(&b, taps_of(&c));
}

/* Rows (or columns) of gx that are `phase` modulo the stride. Output phase + stride*m of gx gets tap i from gy at
   (phase + stride*m + pad - i*dilation) / stride: taps i = tap, tap + every, ... are the ones that divide. */
static ea_core_axis phase_axis(const ea_axis *a, int phase, ptrdiff_t weight_step, ptrdiff_t gx_step) {
    int tap = 0, every = 1;
    while (tap < a->kernel && (phase + a->pad - tap * a->dilation) % a->stride) tap++;
    while (every * a->dilation % a->stride) every++;
    ea_core_axis result = {
        .taps = tap < a->kernel ? (a->kernel - tap + every - 1) / every : 0,
        .first = (phase + a->pad - tap * a->dilation) / a->stride,
        .step = -(every * a->dilation / a->stride),
        .stride = 1,
        .size = a->out,
        .out = ceil_div(a->size - phase, a->stride),
        .a = every * weight_step,
        .c = a->stride * gx_step,
    };
    return result;
}

static int first_tap(const ea_axis *a, int phase) {
    int tap = 0;
    while (tap < a->kernel && (phase + a->pad - tap * a->dilation) % a->stride) tap++;
    return tap;
}

/* The pass over one phase; no taps: gx is zero there. */
static job phase_job(const ea_conv *c, int row_phase, int column_phase) {
    int taps = taps_of(c);
    job j = {.core = {.a_row = taps,
                      .a_channel = (ptrdiff_t)c->channels * taps,
                      .rows = c->channels,
                      .channels = c->outputs,
                      .out_row = plane_of(c),
                      .y = phase_axis(&c->rows, row_phase, c->columns.kernel, c->columns.size),
                      .x = phase_axis(&c->columns, column_phase, 1, 1)},
             .samples = c->samples,
             .groups = c->groups,
             .a_group = (ptrdiff_t)c->outputs * depth_of(c),
             .in_group = (ptrdiff_t)c->outputs * positions_of(c),
             .out_group = (ptrdiff_t)c->channels * plane_of(c)};
    int used = j.core.y.taps * j.core.x.taps;
    if (used) {
        j.blocking = core_blocking(c->outputs, used, j.core.y.out * j.core.x.out);
        j.workspace_bytes = core_bytes(&j.blocking, used);
    }
    return j;
}

static void zero_phase(const job *j, float *gx) {
    const ea_core *c = &j->core;
    for (int map = 0; map < j->samples * j->groups * c->rows; map++)
        for (int y = 0; y < c->y.out; y++)
            for (int x = 0; x < c->x.out; x++) gx[map * c->out_row + y * c->y.c + x * c->x.c] = 0;
}

int32_t ea_conv_input_grad_run(const ea_call *call) {
    const ea_tensor *gy = call->inputs[0], *w = call->inputs[1], *gx = call->outputs[0];
    ea_conv c = conv_geometry(gx, w, call->attrs);
    if (ea_is_depthwise(&c)) return ea_depthwise_input_grad_run(call);
    ea_winograd fast = winograd_of(&c, 1);
    if (is_winograd(&c, &fast)) {
        fast.in = floats(gy), fast.w = floats(w), fast.out = writable(gx), fast.workspace = call->workspace;
        ea_winograd_run(&fast, call->threads);
        return EA_OK;
    }
    const float *in = floats(gy);
    for (int row = 0; row < smaller(c.rows.stride, c.rows.size); row++)
        for (int column = 0; column < smaller(c.columns.stride, c.columns.size); column++) {
            job j = phase_job(&c, row, column);
            j.core.out = writable(gx) + row * c.columns.size + column;
            if (!j.workspace_bytes) {
                zero_phase(&j, j.core.out);
                continue;
            }
            j.core.a = floats(w) + first_tap(&c.rows, row) * c.columns.kernel + first_tap(&c.columns, column);
            j.core.in = j.core.in_begin = in;
            j.core.in_end = in + elements(gy);
            j.workspace = call->workspace;
            run_job(&j, call->threads);
        }
    return EA_OK;
}

int64_t ea_conv_input_grad_need(const ea_call *call) {
    ea_conv c = conv_geometry(call->outputs[0], call->inputs[1], call->attrs);
    if (ea_is_depthwise(&c)) return ea_depthwise_need(&c, call->threads);
    ea_winograd fast = winograd_of(&c, 1);
    if (is_winograd(&c, &fast)) return call->threads * ea_winograd_bytes(&fast);
    int64_t most = 0;
    for (int row = 0; row < smaller(c.rows.stride, c.rows.size); row++)
        for (int column = 0; column < smaller(c.columns.stride, c.columns.size); column++) {
            job j = phase_job(&c, row, column);
            if (j.workspace_bytes > most) most = j.workspace_bytes;
        }
    return call->threads * most;
}
