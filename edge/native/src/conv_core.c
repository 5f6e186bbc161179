#include "conv_core.h"

#include "gemm.h"

/* A panel of DEPTH rows stays in the first cache while it is filled and read (twice as deep and wide: 4 % faster, four
   times the workspace); where it is shallower it has several tiles, so that rows of the output are written in longer
   pieces. */
enum { DEPTH = 160, PANEL_BYTES = 32768, MOST_TILES = 8 };

ea_blocking core_blocking(int channels, int taps, int positions) {
    int blocks = ceil_div(channels, larger(1, DEPTH / taps));
    ea_blocking b = {ceil_div(channels, blocks), 0};
    int64_t tile_bytes = (int64_t)b.channels * taps * WIDEST_TILE * 4;
    int tiles = larger(1, smaller(MOST_TILES, (int)(PANEL_BYTES / tile_bytes)));
    b.columns = smaller(tiles, ceil_div(positions, WIDEST_TILE)) * WIDEST_TILE;
    return b;
}

static int64_t panel_bytes(const ea_blocking *b, int taps) {
    return aligned_bytes((int64_t)b->channels * taps * b->columns * 4);
}

static int64_t offset_bytes(const ea_blocking *b, int taps) {
    return aligned_bytes(((int64_t)b->channels * taps + EA_LOOK_AHEAD) * 4);
}

int64_t core_bytes(const ea_blocking *b, int taps) {
    return panel_bytes(b, taps) + offset_bytes(b, taps) + aligned_bytes((int64_t)taps * WIDEST_TILE * 4);
}

/* index[t][j] = place in a map of what output position first + j reads at tap t, -1 outside; returns whether all
   places of a tap are consecutive. */
static void index_tile(const ea_core *core, int first, int32_t *index) {
    const ea_core_axis *y = &core->y, *x = &core->x;
    int32_t rows[TILE_COLUMNS], columns[TILE_COLUMNS];
    int last = y->out * x->out, row = first / x->out, column = first % x->out;
    for (int j = 0; j < TILE_COLUMNS; j++) {
        rows[j] = first + j < last ? row * y->stride : INT32_MIN / 2;
        columns[j] = column * x->stride;
        if (++column == x->out) {
            column = 0;
            row++;
        }
    }
    for (int i = 0; i < y->taps; i++)
        for (int k = 0; k < x->taps; k++, index += TILE_COLUMNS) {
            int down = y->first + i * y->step, across = x->first + k * x->step;
            for (int j = 0; j < TILE_COLUMNS; j++) {
                int32_t r = rows[j] + down, c = columns[j] + across;
                int inside = ((uint32_t)r < (uint32_t)y->size) & ((uint32_t)c < (uint32_t)x->size);
                index[j] = inside ? r * x->size + c : -1;
            }
        }
}

/* One row of a panel: 0 where the index is negative. Where consecutive positions read consecutive elements
   (`straight`: the address of the first, may be outside a map but not outside the tensor) whole vectors move. */
INLINE void pack_row(const float *map, const float *straight, const int32_t *index, float *panel) {
    if (straight)
        for (int j = 0; j < TILE_COLUMNS; j += LANES) {
            ivec inside = *(const ivec_any *)(index + j) >= 0;
            *(ivec_any *)(panel + j) = *(const ivec_any *)(straight + j) & inside;
        }
    else
        for (int j = 0; j < TILE_COLUMNS; j++) panel[j] = index[j] < 0 ? 0 : map[index[j]];
}

static void pack_tile(const ea_core *core, int first, int channel, int channels, int32_t *index, float *panel) {
    const ea_core_axis *y = &core->y, *x = &core->x;
    int linear = x->stride == 1 && y->stride == 1 && (x->out == x->size || y->out == 1);
    index_tile(core, first, index);
    for (int c = channel; c < channel + channels; c++) {
        const float *map = core->in + (ptrdiff_t)c * y->size * x->size;
        const int32_t *places = index;
        for (int i = 0; i < y->taps; i++) {
            const float *row = map + first + (y->first + i * y->step) * x->size + x->first;
            for (int k = 0; k < x->taps; k++, places += TILE_COLUMNS, panel += TILE_COLUMNS) {
                const float *straight = row + k * x->step;
                if (!linear || straight < core->in_begin || straight + TILE_COLUMNS > core->in_end) straight = NULL;
                pack_row(map, straight, places, panel);
            }
        }
    }
}

static void fill_offsets(const ea_core *core, int channels, int32_t *offsets) {
    for (int c = 0; c < channels; c++)
        for (int i = 0; i < core->y.taps; i++)
            for (int k = 0; k < core->x.taps; k++)
                *offsets++ = (int32_t)(c * core->a_channel + i * core->y.a + k * core->x.a);
    memset(offsets, 0, EA_LOOK_AHEAD * 4);
}

/* Where a tile goes: as whole rows where output positions are consecutive, else place by place. */
static void multiply_tile(const ea_core *core, const ea_product *product, int row, int rows, int first, int columns,
                          int add) {
    const float *bias = core->bias && !add ? core->bias + row : NULL;
    float *out = core->out + row * core->out_row;
    int width = core->x.out;
    if (core->x.c == 1 && core->y.c == width) {
        ea_target to = {out + first, core->out_row, 1, bias, rows, columns, add};
        ea_tile(product, &to);
        return;
    }
    float tile[TILE_ROWS * TILE_COLUMNS];
    ea_target to = {tile, TILE_COLUMNS, 1, bias, rows, ea_tile_width(columns), 0};
    ea_tile(product, &to);
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < columns; j++) {
            int y = (first + j) / width, x = (first + j) % width;
            float *c = out + r * core->out_row + y * core->y.c + x * core->x.c;
            *c = (add ? *c : 0) + tile[r * TILE_COLUMNS + j];
        }
}

static void multiply_panel(const ea_core *core, range rows, range columns, const float *a, const int32_t *offsets,
                           int depth, const float *panel, int add) {
    int count = rows.last - rows.first;
    for (int block = 0; block < row_blocks(count); block++) {
        range r = row_block(count, block);
        int row = rows.first + r.first;
        for (int first = columns.first; first < columns.last; first += TILE_COLUMNS) {
            const float *b = panel + (ptrdiff_t)(first - columns.first) * depth;
            ea_product product = {a + row * core->a_row, core->a_row, offsets, b, TILE_COLUMNS, depth};
            int width = smaller(TILE_COLUMNS, columns.last - first);
            multiply_tile(core, &product, row, r.last - r.first, first, width, add);
        }
    }
}

void core_run(const ea_core *core, const ea_blocking *blocking, range rows, range positions, void *workspace) {
    int taps = core->y.taps * core->x.taps;
    float *panel = workspace;
    int32_t *offsets = (int32_t *)((char *)workspace + panel_bytes(blocking, taps));
    int32_t *index = offsets + offset_bytes(blocking, taps) / 4;
    fill_offsets(core, blocking->channels, offsets);
    for (int start = positions.first; start < positions.last; start += blocking->columns) {
        range columns = {start, smaller(positions.last, start + blocking->columns)};
        for (int c = 0; c < core->channels; c += blocking->channels) {
            int channels = smaller(blocking->channels, core->channels - c), depth = channels * taps;
            for (int first = columns.first; first < columns.last; first += TILE_COLUMNS)
                pack_tile(core, first, c, channels, index, panel + (ptrdiff_t)(first - columns.first) * depth);
            multiply_panel(core, rows, columns, core->a + c * core->a_channel, offsets, depth, panel, c > 0);
        }
    }
}
