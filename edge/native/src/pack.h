/* Transposing outputs and positions: what the weight gradients share. */
#ifndef EA_PACK_H
#define EA_PACK_H

#include "vec.h"

/* panel[p*TILE_COLUMNS + o] = factor[o] * gy[o*row + p] for TILE_COLUMNS outputs; those beyond the last are 0. */
void ea_pack_gradient(const float *gy, ptrdiff_t row, int positions, int outputs, const float *factor, float *panel);

/* gw[o*row + e] += tile[e*TILE_COLUMNS + o] * factor for `outputs` columns and `count` rows of the tile. */
void ea_add_transposed(const float *tile, int count, int outputs, float factor, float *gw, ptrdiff_t row);

#endif
