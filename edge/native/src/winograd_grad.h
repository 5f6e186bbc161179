/* The weight gradient of a 3x3 convolution of stride 1 by Winograd's F(2x2, 3x3): 16 instead of 36 multiplications for a
   2x2 tile of gy. */
#ifndef EA_WINOGRAD_GRAD_H
#define EA_WINOGRAD_GRAD_H

#include "winograd_tiles.h"

/* gw[o][c][i, j] += sum over samples n and positions of weight[n] * bw[n][o] * gy[n][o][y, x] *
       fw[n][c] * x[n][c][y + i - y.pad, x + j - x.pad];  fw, bw may be NULL: 1. */
typedef struct {
    const float *x, *gy, *weight, *fw, *bw;
    float *gw;
    int channels, outputs;
    ea_tiling tiling; /* from x to gy */
    char *workspace;
} ea_winograd_grad;

/* Whether it is faster than a direct one. */
int ea_winograd_grad_wins(const ea_winograd_grad *w);
/* Bytes of one thread's workspace. */
int64_t ea_winograd_grad_bytes(const ea_winograd_grad *w);
void ea_winograd_grad_run(const ea_winograd_grad *w, int threads);

#endif
