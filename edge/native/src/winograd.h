/* 3x3 convolution of stride 1 by Winograd's F(2x2, 3x3) (Lavin and Gray 2016): 16 instead of 36 multiplications for four
   outputs of a channel. */
#ifndef EA_WINOGRAD_H
#define EA_WINOGRAD_H

#include "winograd_tiles.h"

/* out[n][row][y, x] = bias[row] + sum over channels c and taps (i, j) of
       w[row][c][i, j] * in[n][c][y + i - y.pad, x + j - x.pad]
   where an element outside the map counts as 0. `turned`: w is (channels, rows, 3, 3) and turned by 180 degrees. */
typedef struct {
    const float *in, *w, *bias;
    float *out;
    int channels, rows, turned;
    ea_tiling tiling; /* from `in` to `out` */
    char *workspace;
} ea_winograd;

/* Whether it is faster than a direct convolution. */
int ea_winograd_wins(const ea_winograd *w);
/* Bytes of one thread's workspace. */
int64_t ea_winograd_bytes(const ea_winograd *w);
void ea_winograd_run(const ea_winograd *w, int threads);

#endif
