/* The weight gradient of a convolution, from dense maps or from the channels kept of them.

   gy is transposed, TILE_COLUMNS outputs at a time, into a panel (positions, outputs) and scaled there by
   sample_weight * bw. Every tap is then a product of the maps, read in place where the tap meets the map, with the
   panel's rows. */
#include "conv.h"

#include "depthwise.h"
#include "gemm.h"
#include "pack.h"
#include "parallel.h"
#include "window.h"
#include "winograd_grad.h"

enum { PANEL_BYTES = 32768, TAPS_AT_ONCE = 9 };
enum { UNITS_PER_THREAD = 4, LEAST_ROWS = 28 }; /* fewer channels in a part would make packing gy again too dear */

typedef struct {
    ea_conv c;
    const float *x, *gy, *sample_weight, *fw, *bw;
    const int32_t *index; /* channel of a slot of x, -1: unused; NULL: x has all channels */
    int slots;            /* channels of x in one sample */
    float *gw;
    int output_blocks, channel_parts;
    char *workspace;
    int64_t workspace_bytes;
} job;

/* Output rows whose transposed gradient is held at once. */
static int strip_rows(const ea_conv *c) {
    return larger(1, smaller(c->rows.out, PANEL_BYTES / (c->columns.out * WIDEST_TILE * 4)));
}

static int64_t panel_elements(const ea_conv *c) { return (int64_t)strip_rows(c) * c->columns.out * WIDEST_TILE; }

static int64_t thread_bytes(const ea_conv *c) {
    int rows = smaller(MOST_TILE_ROWS, c->channels), taps = smaller(TAPS_AT_ONCE, taps_of(c));
    return 4 * (panel_elements(c) + (int64_t)rows * taps * WIDEST_TILE);
}

/* Products of `rows` maps with the panel at tap (i, k), output rows first..last: to[r*to_row + o]. */
static void correlate(const ea_conv *c, const float *maps, int rows, int i, int k, range strip, const float *panel,
                      int outputs, float *to, ptrdiff_t to_row) {
    int down = i * c->rows.dilation - c->rows.pad, across = k * c->columns.dilation - c->columns.pad;
    range y = meets(&c->rows, down, strip.first, strip.last), x = meets(&c->columns, across, 0, c->columns.out);
    int width = c->columns.size, out = c->columns.out;
    ea_run_product p = {
        .a = maps + (y.first * c->rows.stride + down) * width + x.first * c->columns.stride + across,
        .row = plane_of(c),
        .run = (ptrdiff_t)c->rows.stride * width,
        .step = c->columns.stride,
        .b = panel + ((ptrdiff_t)(y.first - strip.first) * out + x.first) * TILE_COLUMNS,
        .b_run = (ptrdiff_t)out * TILE_COLUMNS,
        .b_row = TILE_COLUMNS,
        .runs = y.last - y.first,
        .length = x.last - x.first,
    };
    if (p.length == out && p.run == (ptrdiff_t)out * p.step) { /* rows follow each other: one long run */
        p.length *= p.runs;
        p.runs = smaller(p.runs, 1);
    }
    ea_target target = {to, to_row, 1, NULL, rows, ea_tile_width(outputs), 0};
    ea_tile_runs(&p, &target);
}

/* The slots of one sample, [first, last), whose channels belong to a part of a group. Parts are cut by channel, not by
   slot: samples keep different channels, and no two parts may add to the same one. */
static range slots_of(const job *j, int sample, int group, int part) {
    range r = part_of(j->c.channels, part, j->channel_parts);
    r = (range){group * j->c.channels + r.first, group * j->c.channels + r.last};
    if (!j->index) return r;
    const int32_t *index = j->index + (ptrdiff_t)sample * j->slots;
    range found = {0, 0};
    while (found.first < j->slots && index[found.first] >= 0 && index[found.first] < r.first) found.first++;
    found.last = found.first;
    while (found.last < j->slots && index[found.last] >= 0 && index[found.last] < r.last) found.last++;
    return found;
}

/* Add a tile of `rows` channels (slot on) and taps first_tap... to gw of outputs from `output` on. */
static void add_tile(const job *j, int sample, int group, int slot, int rows, int first_tap, int taps, int output,
                     int outputs, const float *tile) {
    int all = taps_of(&j->c), dense = !j->fw && !j->index && taps == all;
    ptrdiff_t depth = depth_of(&j->c);
    float *gw = j->gw + (ptrdiff_t)(group * j->c.outputs + output) * depth + first_tap;
    if (dense) {
        ea_add_transposed(tile, rows * taps, outputs, 1, gw + (ptrdiff_t)(slot - group * j->c.channels) * all, depth);
        return;
    }
    for (int r = 0; r < rows; r++) {
        ptrdiff_t at = (ptrdiff_t)sample * j->slots + slot + r;
        int channel = (j->index ? j->index[at] : slot + r) - group * j->c.channels;
        const float *from = tile + (ptrdiff_t)r * taps * TILE_COLUMNS;
        ea_add_transposed(from, taps, outputs, j->fw ? j->fw[at] : 1, gw + (ptrdiff_t)channel * all, depth);
    }
}

/* One sample, group, block of outputs and strip of output rows against channels `part` of the group. */
static void do_strip(const job *j, int sample, int group, int output, range strip, range slots, float *panel,
                     float *tile) {
    const ea_conv *c = &j->c;
    int outputs = smaller(TILE_COLUMNS, c->outputs - output), all = taps_of(c);
    float factor[TILE_COLUMNS];
    ptrdiff_t from = (ptrdiff_t)sample * c->groups * c->outputs + group * c->outputs + output;
    for (int o = 0; o < outputs; o++) factor[o] = j->sample_weight[sample] * (j->bw ? j->bw[from + o] : 1);
    const float *gy = j->gy + from * positions_of(c) + strip.first * c->columns.out;
    ea_pack_gradient(gy, positions_of(c), (strip.last - strip.first) * c->columns.out, outputs, factor, panel);
    int count = slots.last - slots.first;
    for (int block = 0; block < row_blocks(count); block++) {
        range r = row_block(count, block);
        int slot = slots.first + r.first, rows = r.last - r.first;
        const float *maps = j->x + ((ptrdiff_t)sample * j->slots + slot) * plane_of(c);
        for (int tap = 0; tap < all; tap += TAPS_AT_ONCE) {
            int taps = smaller(TAPS_AT_ONCE, all - tap);
            for (int t = 0; t < taps; t++) {
                int i = (tap + t) / c->columns.kernel, k = (tap + t) % c->columns.kernel;
                float *to = tile + t * TILE_COLUMNS;
                correlate(c, maps, rows, i, k, strip, panel, outputs, to, (ptrdiff_t)taps * TILE_COLUMNS);
            }
            add_tile(j, sample, group, slot, rows, tap, taps, output, outputs, tile);
        }
    }
}

static void do_unit(const job *j, int unit, float *workspace) {
    int part = unit % j->channel_parts, block = unit / j->channel_parts % j->output_blocks;
    int group = unit / j->channel_parts / j->output_blocks, rows = strip_rows(&j->c);
    float *tile = workspace + panel_elements(&j->c);
    for (int sample = 0; sample < j->c.samples; sample++) {
        range slots = slots_of(j, sample, group, part);
        if (slots.first == slots.last) continue;
        for (int y = 0; y < j->c.rows.out; y += rows) {
            range strip = {y, smaller(y + rows, j->c.rows.out)};
            do_strip(j, sample, group, block * TILE_COLUMNS, strip, slots, workspace, tile);
        }
    }
}

static void do_part(const void *context, ea_share share) {
    const job *j = context;
    range units = share_of(j->c.groups * j->output_blocks * j->channel_parts, share);
    for (int u = units.first; u < units.last; u++)
        do_unit(j, u, (float *)(j->workspace + share.worker * j->workspace_bytes));
}

static int32_t run_job(job *j, const ea_call *call) {
    const ea_conv *c = &j->c;
    int64_t work = (int64_t)c->samples * j->slots * c->outputs * taps_of(c) * positions_of(c);
    int threads = ea_worth(work, call->threads);
    j->output_blocks = ceil_div(c->outputs, TILE_COLUMNS);
    int units = c->groups * j->output_blocks, wanted = ceil_div(UNITS_PER_THREAD * threads, units);
    j->channel_parts = smaller(c->channels, larger(ceil_div(threads, units), smaller(wanted, c->channels / LEAST_ROWS)));
    if (threads == 1) j->channel_parts = 1;
    j->workspace = call->workspace;
    j->workspace_bytes = thread_bytes(c);
    ea_parallel(threads, do_part, j);
    return EA_OK;
}

static ea_winograd_grad winograd_of(const ea_conv *c) {
    ea_tile_axis y = {c->rows.size, c->rows.pad, c->rows.out}, x = {c->columns.size, c->columns.pad, c->columns.out};
    return (ea_winograd_grad){.channels = c->channels, .outputs = c->outputs, .tiling = {c->samples, y, x}};
}

static int is_winograd(const ea_conv *c, const ea_winograd_grad *w) { return is_plain_3x3(c) && ea_winograd_grad_wins(w); }

int32_t ea_conv_weight_grad_run(const ea_call *call) {
    const ea_tensor *const *in = call->inputs;
    ea_conv c = conv_geometry(in[0], call->outputs[0], call->attrs);
    if (ea_is_depthwise(&c)) return ea_depthwise_weight_grad_run(call);
    ea_winograd_grad fast = winograd_of(&c);
    if (is_winograd(&c, &fast)) {
        fast.x = floats(in[0]), fast.gy = floats(in[1]), fast.weight = floats(in[2]);
        fast.fw = floats(in[3]), fast.bw = floats(in[4]);
        fast.gw = writable(call->outputs[0]), fast.workspace = call->workspace;
        ea_winograd_grad_run(&fast, call->threads);
        return EA_OK;
    }
    job j = {.c = c,
             .x = floats(in[0]),
             .gy = floats(in[1]),
             .sample_weight = floats(in[2]),
             .fw = floats(in[3]),
             .bw = floats(in[4]),
             .slots = c.groups * c.channels,
             .gw = writable(call->outputs[0])};
    return run_job(&j, call);
}

int64_t ea_conv_weight_grad_need(const ea_call *call) {
    ea_conv c = conv_geometry(call->inputs[0], call->outputs[0], call->attrs);
    if (ea_is_depthwise(&c)) return ea_depthwise_need(&c, call->threads);
    ea_winograd_grad fast = winograd_of(&c);
    if (is_winograd(&c, &fast)) return call->threads * ea_winograd_grad_bytes(&fast);
    return call->threads * thread_bytes(&c);
}

int32_t ea_conv_weight_grad_sparse_run(const ea_call *call) {
    const ea_tensor *const *in = call->inputs;
    job j = {.c = conv_geometry(in[0], call->outputs[0], call->attrs),
             .x = floats(in[0]),
             .index = in[1]->data,
             .gy = floats(in[2]),
             .sample_weight = floats(in[3]),
             .bw = floats(in[4]),
             .slots = in[0]->shape[1],
             .gw = writable(call->outputs[0])};
    return run_job(&j, call);
}

int64_t ea_conv_weight_grad_sparse_need(const ea_call *call) {
    ea_conv c = conv_geometry(call->inputs[0], call->outputs[0], call->attrs);
    return call->threads * thread_bytes(&c);
}
