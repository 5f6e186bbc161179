/* The register-blocked inner products everything else is built on.

   A tile is up to TILE_ROWS rows and TILE_COLUMNS columns of C (+)= A B. An element of A is broadcast, a row of
   B is read as vectors, C stays in registers. */
#ifndef EA_GEMM_H
#define EA_GEMM_H

#include "vec.h"

/* A[r][k] = a[r*row + offset[k]];  B[k][j] = b[k*b_row + j]. The offsets go on for EA_LOOK_AHEAD entries, which say
   what to fetch ahead (eight lines from there on: the weights of a few rows and taps that lie together). */
enum { EA_LOOK_AHEAD = 18 };
typedef struct {
    const float *a;
    ptrdiff_t row;
    const int32_t *offset;
    const float *b;
    ptrdiff_t b_row;
    int depth;
} ea_product;

/* A sum over `runs` pieces of `length` terms:
   A[r][(j, k)] = a[r*row + j*run + k*step];  B[(j, k)] = b + j*b_run + k*b_row. */
typedef struct {
    const float *a;
    ptrdiff_t row, run, step;
    const float *b;
    ptrdiff_t b_run, b_row;
    int runs, length;
} ea_run_product;

/* Columns a tile of `columns` really computes (and so reads of every row of B): the widths are 8, 16, 32. */
int ea_tile_width(int columns);

/* Write (or, with `add`, add) rows x columns of the product to c, rows `c_row` and columns `c_step` elements
   apart; bias (NULL: none) has one element a row. ea_tile_width(columns) columns of B are read. */
typedef struct {
    float *c;
    ptrdiff_t row, step;
    const float *bias;
    int rows, columns, add;
} ea_target;

void ea_tile(const ea_product *p, const ea_target *to);
void ea_tile_runs(const ea_run_product *p, const ea_target *to);

/* Rows of block `index` when `rows` are cut into as few blocks of at most TILE_ROWS as possible, evenly. */
INLINE range row_block(int rows, int index) { return part_of(rows, index, ceil_div(rows, TILE_ROWS)); }
INLINE int row_blocks(int rows) { return ceil_div(rows, TILE_ROWS); }

#endif
