/* The implicit matrix product that the convolution and its input gradient share.

   out[r][y, x] (+)= sum over channels c and taps (i, j) of
       a[r*a_row + c*a_channel + a_first + i*a_y + j*a_x] * in[c][y*stride_y + y_first + i*y_step, the same for x]
   where an element outside the map counts as 0. */
#ifndef EA_CONV_CORE_H
#define EA_CONV_CORE_H

#include "vec.h"

typedef struct {
    int taps, first, step, stride, size, out; /* taps of this axis; of `in`: first, step, stride, size; outputs */
    ptrdiff_t a, c;                           /* steps in the weight and in the output */
} ea_core_axis;

typedef struct {
    const float *a, *bias;
    ptrdiff_t a_row, a_channel;
    int rows, channels;
    const float *in, *in_begin, *in_end; /* [in_begin, in_end) may be read */
    float *out;
    ptrdiff_t out_row;
    ea_core_axis y, x;
} ea_core;

/* How a product is cut: channels of a depth block, columns of a packed panel. */
typedef struct {
    int channels, columns;
} ea_blocking;

ea_blocking core_blocking(int channels, int taps, int positions);

/* Bytes of one thread's workspace. */
int64_t core_bytes(const ea_blocking *blocking, int taps);

/* Do rows [rows.first, rows.last) of positions [positions.first, positions.last). */
void core_run(const ea_core *core, const ea_blocking *blocking, range rows, range positions, void *workspace);

#endif
