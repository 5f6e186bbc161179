#include "winograd_tiles.h"

/* Column j of the tiles from `column` on: lanes that lie in the map. */
static ivec8 lanes_inside(const ea_tiling *t, int column, int j) {
    const ivec8 lane = {0, 1, 2, 3, 4, 5, 6, 7};
    ivec8 x = 2 * (lane + column) + (j - t->x.pad);
    return (x >= 0) & (x < t->x.size);
}

static ea_tile_group group_at(const ea_tiling *t, int first, int tile, int last) {
    int across = ea_tiles_across(&t->x), down = ea_tiles_across(&t->y);
    int column = tile % across, row = tile / across % down;
    int x = 2 * column - t->x.pad, y = 2 * row - t->y.pad;
    ea_tile_group g = {.place = tile - first, .count = smaller(EA_GROUP, smaller(last - tile, across - column))};
    g.sample = tile / across / down;
    g.from = (ptrdiff_t)y * t->x.size + x;
    g.to = (ptrdiff_t)2 * row * t->x.out + 2 * column;
    g.columns = smaller(2 * g.count, t->x.out - 2 * column);
    g.has_below = 2 * row + 1 < t->y.out;
    for (int i = 0; i < 4; i++) g.rows |= (y + i >= 0 && y + i < t->y.size) << i;
    g.inside = x >= 0 && x + 2 * g.count + 2 <= t->x.size;
    for (int j = 0; j < 4; j++) g.mask[j] = lanes_inside(t, column, j);
    return g;
}

int ea_tile_groups(const ea_tiling *t, range tiles, ea_tile_group *groups) {
    int count = 0;
    for (int tile = tiles.first; tile < tiles.last; tile += groups[count++].count)
        groups[count] = group_at(t, tiles.first, tile, tiles.last);
    return count;
}

enum { REACH = 2 * EA_GROUP + 2 }; /* elements of a row that are read for a group */

#define EVEN(a, b) SHUFFLE8(a, b, 0, 2, 4, 6, 8, 10, 12, 14)
#define ODD(a, b) SHUFFLE8(a, b, 1, 3, 5, 7, 9, 11, 13, 15)

/* A row of the tiles of a group, column by column; outside [begin, end) nothing is read. */
INLINE void read_row(const float *from, const float *begin, const float *end, const ea_tile_group *g, vec8 x[4]) {
    float copy[REACH];
    if (from < begin || from + REACH > end) {
        for (int k = 0; k < REACH; k++) copy[k] = from + k >= begin && from + k < end ? from[k] : 0;
        from = copy;
    }
    vec8 a = load8(from), b = load8(from + 8), c = load8(from + 2), d = load8(from + 10);
    x[0] = EVEN(a, b), x[1] = ODD(a, b), x[2] = EVEN(c, d), x[3] = ODD(c, d);
    if (!g->inside)
        for (int j = 0; j < 4; j++) x[j] = (vec8)((ivec8)x[j] & g->mask[j]);
}

/* Rows and columns (1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1) times tiles of 4x4. */
INLINE void transform_group(const ea_tiling *t, const float *map, const float *begin, const float *end, float factor,
                            const ea_tile_group *g, float *to, ptrdiff_t step) {
    vec8 d[4][4];
    for (int i = 0; i < 4; i++) {
        vec8 x[4] = {{0}};
        const float *from = map + g->from + i * t->x.size;
        __builtin_prefetch(from + ea_map_size(t)); /* the next channel's row: too far away to be foreseen */
        if (g->rows >> i & 1) read_row(from, begin, end, g, x);
        if (factor != 1)
            for (int j = 0; j < 4; j++) x[j] *= factor;
        d[i][0] = x[0] - x[2];
        d[i][1] = x[1] + x[2];
        d[i][2] = x[2] - x[1];
        d[i][3] = x[1] - x[3];
    }
    for (int j = 0; j < 4; j++) {
        store8(to + (0 + j) * step, d[0][j] - d[2][j]);
        store8(to + (4 + j) * step, d[1][j] + d[2][j]);
        store8(to + (8 + j) * step, d[2][j] - d[1][j]);
        store8(to + (12 + j) * step, d[1][j] - d[3][j]);
    }
}

/* What is written too far is written again by the next group or channel, or falls into the pad. */
void ea_transform_maps(const ea_tiling *t, const ea_tile_source *source, const ea_tile_group *groups, int count,
                       float *to, ptrdiff_t step) {
    const float *end = source->maps + (ptrdiff_t)t->samples * source->all * ea_map_size(t);
    for (int c = source->channels.first; c < source->channels.last; c++, to += EA_TILES)
        for (const ea_tile_group *g = groups; g < groups + count; g++) {
            ptrdiff_t at = g->sample * source->all + c;
            float factor = source->factors ? source->factors[at] : 1;
            transform_group(t, source->maps + at * ea_map_size(t), source->maps, end, factor, g, to + g->place, step);
        }
}
