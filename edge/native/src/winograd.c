/* Tiles of 2x2 outputs are numbered through all samples and taken EA_TILES at a time. Weights of a block of rows and
   channels are transformed once and meet all tiles; for each of the 16 elements of a transformed tile that is a matrix
   product of weights (rows, channels) and inputs (channels, tiles). */
#include "winograd.h"

#include "gemm.h"
#include "parallel.h"

enum { MOST_ROWS = 64, MOST_CHANNELS = 64, UNITS_PER_THREAD = 4 };

/* How the work is cut, evenly. */
typedef struct {
    int row_blocks, rows, channel_blocks, channels; /* the most of a block */
} blocking;

static blocking blocking_of(const ea_winograd *w) {
    blocking b = {ceil_div(w->rows, MOST_ROWS), 0, ceil_div(w->channels, MOST_CHANNELS), 0};
    b.rows = ceil_div(w->rows, b.row_blocks);
    b.channels = ceil_div(w->channels, b.channel_blocks);
    return b;
}

/* Pieces of a thread's workspace. Element e of weights is a matrix (rows, channels), `turned` (channels, rows); of
   inputs (channels, EA_TILES); of products (MOST_TILE_ROWS, EA_TILES). */
typedef struct {
    float *weights, *inputs, *products;
    ptrdiff_t weights_step, inputs_step;
} pieces;

enum { PRODUCT_STEP = MOST_TILE_ROWS * EA_TILES + EA_SPACE };

static ptrdiff_t weights_step(const blocking *b) { return (ptrdiff_t)b->rows * b->channels + EA_SPACE; }
static ptrdiff_t inputs_step(const blocking *b) { return (ptrdiff_t)b->channels * EA_TILES + EA_SPACE; }

static pieces carve(const blocking *b, char *memory) {
    memory += -(uintptr_t)memory % EA_LINE;
    pieces p = {.weights = (float *)memory, .weights_step = weights_step(b), .inputs_step = inputs_step(b)};
    p.inputs = p.weights + EA_ELEMENTS * p.weights_step;
    p.products = p.inputs + EA_ELEMENTS * p.inputs_step;
    return p;
}

int64_t ea_winograd_bytes(const ea_winograd *w) {
    blocking b = blocking_of(w);
    return aligned_bytes(4 * (EA_ELEMENTS * (weights_step(&b) + inputs_step(&b) + PRODUCT_STEP)) + EA_LINE);
}

/* (1, 0, 0), (1, 1, 1)/2, (1, -1, 1)/2, (0, 0, 1) times three values. */
#define SPREAD(T, a, b, c, to)           \
    {                                    \
        T ends = 0.5f * ((a) + (c));     \
        T middle = 0.5f * (b);           \
        to[0] = (a);                     \
        to[1] = ends + middle;           \
        to[2] = ends - middle;           \
        to[3] = (c);                     \
    }
#define DEFINE_KERNEL(NAME, T, STORE)                                                                        \
    INLINE void NAME(const T g[9], int turned, float *to, ptrdiff_t step) {                                  \
        T columns[3][4];                                                                                     \
        for (int j = 0; j < 3; j++) SPREAD(T, g[j], g[3 + j], g[6 + j], columns[j])                          \
        for (int i = 0; i < 4; i++) {                                                                        \
            T row[4];                                                                                        \
            SPREAD(T, columns[0][i], columns[1][i], columns[2][i], row)                                      \
            for (int j = 0; j < 4; j++) STORE(to + (turned ? turn(i) * 4 + turn(j) : i * 4 + j) * step, row[j]); \
        }                                                                                                    \
    }

/* Where a row or column of a transformed kernel goes when the kernel is turned. */
INLINE int turn(int i) { return i % 3 ? i : 3 - i; }
INLINE void store_one(float *to, float value) { *to = value; }

DEFINE_KERNEL(kernel_of_four, vec4, store4)
DEFINE_KERNEL(kernel_of_one, float, store_one)

/* Transform `count` 3x3 kernels that lie together at w; fetch the ones `next` elements further, which come next. */
static void transform_kernels(const float *w, int count, int turned, ptrdiff_t next, float *to, ptrdiff_t step) {
    int at = 0;
    for (; at + 4 <= count; at += 4, w += 36) {
        vec4 g[9];
        for (int i = 0; i < 3; i++) __builtin_prefetch(w + next + 16 * i);
        for (int half = 0; half < 2; half++) {
            for (int i = 0; i < 4; i++) g[4 * half + i] = load4(w + 9 * i + 4 * half);
            transpose4(g + 4 * half);
        }
        g[8] = (vec4){w[8], w[17], w[26], w[35]};
        kernel_of_four(g, turned, to + at, step);
    }
    for (; at < count; at++, w += 9) kernel_of_one(w, turned, to + at, step);
}

static void transform_weights(const ea_winograd *w, range rows, range channels, const pieces *p) {
    range outer = w->turned ? channels : rows, inner = w->turned ? rows : channels;
    int width = w->turned ? w->rows : w->channels, count = inner.last - inner.first;
    for (int i = outer.first; i < outer.last; i++) {
        const float *from = w->w + ((ptrdiff_t)i * width + inner.first) * 9;
        float *to = p->weights + (ptrdiff_t)(i - outer.first) * count;
        transform_kernels(from, count, w->turned, (ptrdiff_t)width * 9, to, p->weights_step);
    }
}

/* (1, 1, 1, 0), (0, 1, -1, -1) times rows and columns of products of 8 tiles: two rows of 16 outputs. */
INLINE void gather_outputs(const float *from, float bias, vec8 rows[4]) {
    vec8 top[4], bottom[4];
    for (int j = 0; j < 4; j++) {
        vec8 m[4];
        for (int i = 0; i < 4; i++) m[i] = load8(from + (4 * i + j) * PRODUCT_STEP);
        top[j] = m[0] + m[1] + m[2];
        bottom[j] = m[1] - m[2] - m[3];
    }
    for (int half = 0; half < 2; half++) {
        const vec8 *m = half ? bottom : top;
        vec8 left = m[0] + m[1] + m[2] + bias, right = m[1] - m[2] - m[3] + bias;
        rows[2 * half] = SHUFFLE8(left, right, 0, 8, 1, 9, 2, 10, 3, 11);
        rows[2 * half + 1] = SHUFFLE8(left, right, 4, 12, 5, 13, 6, 14, 7, 15);
    }
}

/* `count` columns of a row, at most 16. */
INLINE void put_row(float *to, const vec8 pair[2], int count, int add) {
    float values[2 * EA_GROUP];
    int i = 0;
    if (count >= EA_GROUP) store8(to, add ? load8(to) + pair[0] : pair[0]), i = EA_GROUP;
    if (count == 2 * EA_GROUP) {
        store8(to + EA_GROUP, add ? load8(to + EA_GROUP) + pair[1] : pair[1]);
        return;
    }
    store8(values, pair[0]);
    store8(values + EA_GROUP, pair[1]);
    for (; i + 2 <= count; i += 2) {
        to[i] = add ? to[i] + values[i] : values[i];
        to[i + 1] = add ? to[i + 1] + values[i + 1] : values[i + 1];
    }
    if (i < count) to[i] = add ? to[i] + values[i] : values[i];
}

INLINE void write_outputs(const ea_winograd *w, range rows, const ea_tile_group *groups, int count, int add,
                          const float *products) {
    ptrdiff_t plane = ea_result_size(&w->tiling);
    for (int r = rows.first; r < rows.last; r++, products += EA_TILES) {
        float bias = w->bias && !add ? w->bias[r] : 0;
        for (const ea_tile_group *g = groups; g < groups + count; g++) {
            vec8 values[4];
            gather_outputs(products + g->place, bias, values);
            float *to = w->out + (g->sample * w->rows + r) * plane + g->to;
            put_row(to, values, g->columns, add);
            if (g->has_below) put_row(to + w->tiling.x.out, values + 2, g->columns, add);
        }
    }
}

/* Products of a register tile's rows for all 16 elements. */
static void multiply(const ea_winograd *w, range block, range rows, int channels, int tiles, const pieces *p) {
    int first = rows.first - block.first, count = rows.last - rows.first, all = block.last - block.first;
    for (int e = 0; e < EA_ELEMENTS; e++)
        for (int column = 0; column < tiles; column += TILE_COLUMNS) {
            ea_run_product product = {
                .a = p->weights + e * p->weights_step + (w->turned ? first : (ptrdiff_t)first * channels),
                .row = w->turned ? 1 : channels,
                .step = w->turned ? all : 1,
                .b = p->inputs + e * p->inputs_step + column,
                .b_row = EA_TILES,
                .runs = 1,
                .length = channels,
            };
            float *to = p->products + (ptrdiff_t)e * PRODUCT_STEP + column;
            ea_target target = {to, EA_TILES, 1, NULL, count, ea_tile_width(smaller(TILE_COLUMNS, tiles - column)), 0};
            ea_tile_runs(&product, &target);
        }
}

/* A block of rows for the tiles [tiles.first, tiles.last). */
static void do_block(const ea_winograd *w, range rows, range tiles, const blocking *b, const pieces *p) {
    for (int part = 0; part < b->channel_blocks; part++) {
        range channels = part_of(w->channels, part, b->channel_blocks);
        ea_tile_source source = {w->in, NULL, w->channels, channels};
        transform_weights(w, rows, channels, p);
        for (int first = tiles.first; first < tiles.last; first += EA_TILES) {
            range own = {first, smaller(first + EA_TILES, tiles.last)};
            ea_tile_group groups[EA_TILES];
            int group_count = ea_tile_groups(&w->tiling, own, groups);
            ea_transform_maps(&w->tiling, &source, groups, group_count, p->inputs, p->inputs_step);
            int count = rows.last - rows.first;
            for (int i = 0; i < row_blocks(count); i++) {
                range r = row_block(count, i);
                r = (range){rows.first + r.first, rows.first + r.last};
                multiply(w, rows, r, channels.last - channels.first, own.last - own.first, p);
                if (part) write_outputs(w, r, groups, group_count, 1, p->products);
                else write_outputs(w, r, groups, group_count, 0, p->products);
            }
        }
    }
}

typedef struct {
    const ea_winograd *w;
    blocking b;
    int tiles, tile_parts;
} job;

static void do_part(const void *context, ea_share share) {
    const job *j = context;
    pieces p = carve(&j->b, j->w->workspace + share.worker * ea_winograd_bytes(j->w));
    range units = share_of(j->b.row_blocks * j->tile_parts, share);
    for (int u = units.first; u < units.last; u++) {
        range rows = part_of(j->w->rows, u / j->tile_parts, j->b.row_blocks);
        range own = part_of(ceil_div(j->tiles, EA_TILES), u % j->tile_parts, j->tile_parts);
        do_block(j->w, rows, (range){own.first * EA_TILES, smaller(j->tiles, own.last * EA_TILES)}, &j->b, &p);
    }
}

void ea_winograd_run(const ea_winograd *w, int threads) {
    job j = {w, blocking_of(w), w->tiling.samples * ea_sample_tiles(&w->tiling), 1};
    threads = ea_worth((int64_t)j.tiles * EA_ELEMENTS * w->rows * w->channels, threads);
    int wanted = ceil_div(UNITS_PER_THREAD * threads, j.b.row_blocks);
    if (threads > 1) j.tile_parts = smaller(ceil_div(j.tiles, EA_TILES), wanted);
    ea_parallel(threads, do_part, &j);
}

/* Measured on Zen 4: 1.1 times as fast with 8 channels, 1.2 with 512 of both and 25 tiles (transforming the
   weights takes long), 1.5 to 1.9 with 32 of both and hundreds of tiles. */
int ea_winograd_wins(const ea_winograd *w) {
    return w->channels >= 8 && w->rows >= 4 && ea_sample_tiles(&w->tiling) >= 25;
}
