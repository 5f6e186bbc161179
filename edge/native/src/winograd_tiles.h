/* Input tiles of Winograd's F(2x2, 3x3) (Lavin and Gray 2016), which the convolution and its gradients share.

   A tile is 2x2 elements of a result and the 4x4 elements of a map that they depend on. Tiles are numbered row by row
   through all samples, and taken EA_TILES at a time. */
#ifndef EA_WINOGRAD_TILES_H
#define EA_WINOGRAD_TILES_H

#include "vec.h"

enum {
    EA_TILES = 32,
    EA_ELEMENTS = 16, /* of a tile */
    EA_GROUP = 8,     /* tiles in a vector */
    EA_SPACE = 16,    /* floats after each element's matrix: whole vectors are written; no power of two between them */
    EA_LINE = 64,     /* bytes to which matrices are aligned */
};

typedef struct {
    int size, pad, out; /* elements of a map, before it, of the result */
} ea_tile_axis;

typedef struct {
    int samples;
    ea_tile_axis y, x;
} ea_tiling;

INLINE int ea_tiles_across(const ea_tile_axis *a) { return ceil_div(a->out, 2); }
INLINE int ea_sample_tiles(const ea_tiling *t) { return ea_tiles_across(&t->y) * ea_tiles_across(&t->x); }
INLINE ptrdiff_t ea_map_size(const ea_tiling *t) { return (ptrdiff_t)t->y.size * t->x.size; }
INLINE ptrdiff_t ea_result_size(const ea_tiling *t) { return (ptrdiff_t)t->y.out * t->x.out; }

/* Up to 8 tiles that follow each other in a row of tiles: what they read and write, the same for all channels. */
typedef struct {
    int place, count;             /* in the block of tiles */
    ptrdiff_t sample, from, to;   /* sample; its first element in a map (may lie outside) and in a result */
    int rows, columns, has_below; /* bit i: row i of the 4x4 lies in the map; columns of the result; its second row */
    int inside;                   /* all columns lie in the map; else the masks say which do */
    ivec8 mask[4];
} ea_tile_group;

/* The groups of tiles [tiles.first, tiles.last), at most EA_TILES; returns how many. */
int ea_tile_groups(const ea_tiling *t, range tiles, ea_tile_group *groups);

/* Maps (samples, all, y.size, x.size), of which `channels` are transformed; factors (samples, all) or NULL: 1. */
typedef struct {
    const float *maps, *factors;
    int all;
    range channels;
} ea_tile_source;

/* to[e*step + c*EA_TILES + tile] = element e of the transformed tile. A row and a group after it are written too far: up
   to EA_GROUP floats, which the pad takes. */
void ea_transform_maps(const ea_tiling *t, const ea_tile_source *source, const ea_tile_group *groups, int count,
                       float *to, ptrdiff_t step);

#endif
