/* Matrix products of row-major arrays read in place: fully connected layers, products of activations. */
#ifndef EA_DENSE_H
#define EA_DENSE_H

#include "vec.h"

/* y[m][o] = x[m] . w[o] + bias[o] for rows 0..places of x and `outputs` of w, each `depth` long (bias may be NULL). */
typedef struct {
    const float *x, *w, *bias;
    float *y;
    int places, depth;
    ptrdiff_t y_row;
} ea_dots;

void ea_dense_dots(const ea_dots *d, range outputs);

/* c[r][j] (+)= scale[r] * column_scale[j] * sum over k of a[r*row + k*step] * b[k*b_row + j], for rows 0..rows and
   the columns of a range; either scale may be NULL. */
typedef struct {
    const float *a, *b, *scale, *column_scale;
    ptrdiff_t row, step, b_row, c_row;
    float *c;
    int rows, depth, add;
} ea_dense;

void ea_dense_product(const ea_dense *d, range columns);

#endif
