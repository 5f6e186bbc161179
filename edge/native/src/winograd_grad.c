/* For each of the 16 elements of a transformed tile, a block of gw is a matrix product of inputs (channels, tiles) and
   gradients (tiles, outputs). The products are added up over all tiles and transformed once. */
#include "winograd_grad.h"

#include "gemm.h"
#include "pack.h"
#include "parallel.h"

enum { MOST_CHANNELS = 32, MOST_OUTPUTS = 64, LEAST_CHANNELS = 16, UNITS_PER_THREAD = 2 };
enum { COLUMNS = 2 * EA_GROUP }; /* of gy in a group */

typedef struct {
    const ea_winograd_grad *w;
    int channel_blocks, output_blocks;
} job;

/* The most channels and outputs of a block. */
static int block_channels(const ea_winograd_grad *w) {
    return ceil_div(w->channels, ceil_div(w->channels, MOST_CHANNELS));
}
static int block_outputs(const ea_winograd_grad *w) {
    return smaller(MOST_OUTPUTS, ceil_div(w->outputs, WIDEST_TILE) * WIDEST_TILE);
}

/* Pieces of a thread's workspace. Element e of inputs is a matrix (channels, EA_TILES), of gradients one (EA_TILES,
   TILE_COLUMNS) for each tile of columns, of products (channels, outputs). `panel`: two rows of gy, transposed, or taps. */
typedef struct {
    float *inputs, *gradients, *products, *panel;
    ptrdiff_t inputs_step, gradients_step, products_step;
    int outputs;
} pieces;

enum { PANEL = 2 * COLUMNS * WIDEST_TILE };

static pieces sizes_of(const ea_winograd_grad *w) {
    ptrdiff_t channels = block_channels(w), outputs = block_outputs(w);
    return (pieces){.inputs_step = channels * EA_TILES + EA_SPACE,
                    .gradients_step = outputs * EA_TILES + EA_SPACE,
                    .products_step = channels * outputs + EA_SPACE,
                    .outputs = block_outputs(w)};
}

static pieces carve(const ea_winograd_grad *w, char *memory) {
    pieces p = sizes_of(w);
    p.inputs = (float *)(memory + -(uintptr_t)memory % EA_LINE);
    p.gradients = p.inputs + EA_ELEMENTS * p.inputs_step;
    p.products = p.gradients + EA_ELEMENTS * p.gradients_step;
    p.panel = p.products + EA_ELEMENTS * p.products_step;
    return p;
}

int64_t ea_winograd_grad_bytes(const ea_winograd_grad *w) {
    pieces p = sizes_of(w);
    int64_t elements = EA_ELEMENTS * (p.inputs_step + p.gradients_step + p.products_step) + PANEL;
    return aligned_bytes(4 * elements + EA_LINE);
}

/* (1, 0), (1, 1), (1, -1), (0, -1) times two values. */
#define SPREAD(a, b, to) to[0] = (a), to[1] = (a) + (b), to[2] = (a) - (b), to[3] = -(b)

/* A tile of gy (two columns of both rows of the panel) for all outputs of a tile of columns. */
INLINE void transform_gradient(const float *top, const float *bottom, float *to, ptrdiff_t step) {
    for (int o = 0; o < TILE_COLUMNS; o += LANES) {
        vec left[4], right[4];
        SPREAD(load(top + o), load(bottom + o), left);
        SPREAD(load(top + TILE_COLUMNS + o), load(bottom + TILE_COLUMNS + o), right);
        for (int i = 0; i < 4; i++) {
            vec row[4];
            SPREAD(left[i], right[i], row);
            for (int j = 0; j < 4; j++) store(to + (4 * i + j) * step + o, row[j]);
        }
    }
}

/* Scaled gradients of a tile of columns: outputs [outputs.first, outputs.last) for groups of tiles. */
static void transform_gradients(const ea_winograd_grad *w, range outputs, const ea_tile_group *groups, int count,
                                const pieces *p, float *to) {
    ptrdiff_t plane = ea_result_size(&w->tiling);
    float *rows[2] = {p->panel, p->panel + COLUMNS * TILE_COLUMNS};
    int width = outputs.last - outputs.first;
    for (const ea_tile_group *g = groups; g < groups + count; g++) {
        ptrdiff_t at = g->sample * w->outputs + outputs.first;
        float factor[TILE_COLUMNS];
        for (int o = 0; o < width; o++) factor[o] = w->weight[g->sample] * (w->bw ? w->bw[at + o] : 1);
        memset(p->panel, 0, 2 * COLUMNS * TILE_COLUMNS * 4);
        for (int i = 0; i <= g->has_below; i++) {
            const float *from = w->gy + at * plane + g->to + i * w->tiling.x.out;
            ea_pack_gradient(from, plane, g->columns, width, factor, rows[i]);
        }
        for (int tile = 0; tile < g->count; tile++) {
            ptrdiff_t place = 2 * tile * TILE_COLUMNS;
            float *own = to + (g->place + tile) * TILE_COLUMNS;
            transform_gradient(rows[0] + place, rows[1] + place, own, p->gradients_step);
        }
    }
}

/* products[e] += inputs[e] gradients[e] for a tile of columns. */
static void multiply(int channels, int tiles, int column, int width, const pieces *p) {
    for (int e = 0; e < EA_ELEMENTS; e++)
        for (int block = 0; block < row_blocks(channels); block++) {
            range r = row_block(channels, block);
            ea_run_product product = {
                .a = p->inputs + e * p->inputs_step + (ptrdiff_t)r.first * EA_TILES,
                .row = EA_TILES,
                .step = 1,
                .b = p->gradients + e * p->gradients_step + (ptrdiff_t)column * EA_TILES,
                .b_row = TILE_COLUMNS,
                .runs = 1,
                .length = tiles,
            };
            float *to = p->products + e * p->products_step + (ptrdiff_t)r.first * p->outputs + column;
            ea_target target = {to, p->outputs, 1, NULL, r.last - r.first, ea_tile_width(width), 1};
            ea_tile_runs(&product, &target);
        }
}

/* (1, 1/2, 1/2, 0), (0, 1/2, -1/2, 0), (0, 1/2, 1/2, 1) times four values. */
#define GATHER(a, b, c, d, to)                                      \
    {                                                               \
        vec sum = 0.5f * ((b) + (c));                               \
        to[0] = (a) + sum, to[1] = 0.5f * ((b) - (c)), to[2] = sum + (d); \
    }

/* Nine taps of TILE_COLUMNS outputs from the products of one channel. */
static void gather_taps(const float *from, ptrdiff_t step, float *taps) {
    for (int o = 0; o < TILE_COLUMNS; o += LANES) {
        vec columns[4][3];
        for (int j = 0; j < 4; j++) {
            vec m[4];
            for (int i = 0; i < 4; i++) m[i] = load(from + (4 * i + j) * step + o);
            GATHER(m[0], m[1], m[2], m[3], columns[j])
        }
        for (int i = 0; i < 3; i++) {
            vec row[3];
            GATHER(columns[0][i], columns[1][i], columns[2][i], columns[3][i], row)
            for (int j = 0; j < 3; j++) store(taps + (3 * i + j) * TILE_COLUMNS + o, row[j]);
        }
    }
}

static void do_unit(const ea_winograd_grad *w, range channels, range outputs, const pieces *p) {
    int all = w->tiling.samples * ea_sample_tiles(&w->tiling), depth = channels.last - channels.first;
    ea_tile_source source = {w->x, w->fw, w->channels, channels};
    memset(p->products, 0, (size_t)(EA_ELEMENTS * p->products_step) * 4);
    for (int first = 0; first < all; first += EA_TILES) {
        ea_tile_group groups[EA_TILES];
        range tiles = {first, smaller(all, first + EA_TILES)};
        int count = ea_tile_groups(&w->tiling, tiles, groups);
        ea_transform_maps(&w->tiling, &source, groups, count, p->inputs, p->inputs_step);
        for (int o = outputs.first; o < outputs.last; o += TILE_COLUMNS) {
            range columns = {o, smaller(outputs.last, o + TILE_COLUMNS)};
            int column = o - outputs.first;
            transform_gradients(w, columns, groups, count, p, p->gradients + (ptrdiff_t)column * EA_TILES);
            multiply(depth, tiles.last - tiles.first, column, columns.last - o, p);
        }
    }
    for (int c = 0; c < depth; c++)
        for (int o = outputs.first; o < outputs.last; o += TILE_COLUMNS) {
            gather_taps(p->products + (ptrdiff_t)c * p->outputs + o - outputs.first, p->products_step, p->panel);
            float *to = w->gw + ((ptrdiff_t)o * w->channels + channels.first + c) * 9;
            ea_add_transposed(p->panel, 9, smaller(TILE_COLUMNS, outputs.last - o), 1, to, (ptrdiff_t)w->channels * 9);
        }
}

static void do_part(const void *context, ea_share share) {
    const job *j = context;
    pieces p = carve(j->w, j->w->workspace + share.worker * ea_winograd_grad_bytes(j->w));
    range units = share_of(j->channel_blocks * j->output_blocks, share);
    for (int u = units.first; u < units.last; u++) {
        int first = u % j->output_blocks * p.outputs;
        range outputs = {first, smaller(j->w->outputs, first + p.outputs)};
        do_unit(j->w, part_of(j->w->channels, u / j->output_blocks, j->channel_blocks), outputs, &p);
    }
}

void ea_winograd_grad_run(const ea_winograd_grad *w, int threads) {
    job j = {w, ceil_div(w->channels, MOST_CHANNELS), ceil_div(w->outputs, block_outputs(w))};
    int64_t work = (int64_t)w->tiling.samples * ea_sample_tiles(&w->tiling) * EA_ELEMENTS * w->outputs * w->channels;
    threads = ea_worth(work, threads);
    int wanted = ceil_div(UNITS_PER_THREAD * threads, j.output_blocks);
    if (threads > 1) j.channel_blocks = larger(j.channel_blocks, smaller(wanted, w->channels / LEAST_CHANNELS));
    ea_parallel(threads, do_part, &j);
}

/* Measured on Zen 4: with 25 tiles transforming the products takes as long as is saved; 1.2 times as fast with 64 and more,
   1.5 with thousands. */
int ea_winograd_grad_wins(const ea_winograd_grad *w) {
    return w->channels >= 16 && w->outputs >= 32 && w->tiling.samples * ea_sample_tiles(&w->tiling) >= 64;
}
