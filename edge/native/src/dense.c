#include "dense.h"

#include "gemm.h"

enum { ROWS = 4 };

/* m rows of x by n rows of w (both constants where it is inlined). */
INLINE void dots(const int m, const int n, const ea_dots *d, int place, int output) {
    vec total[ROWS][ROWS];
    const float *x = d->x + (ptrdiff_t)place * d->depth, *w = d->w + (ptrdiff_t)output * d->depth;
    int depth = d->depth, k = 0;
#pragma GCC unroll 4
    for (int r = 0; r < m; r++)
#pragma GCC unroll 4
        for (int c = 0; c < n; c++) total[r][c] = (vec){0};
    for (; k + LANES <= depth; k += LANES) {
        vec left[ROWS];
#pragma GCC unroll 4
        for (int r = 0; r < m; r++) left[r] = load(x + (ptrdiff_t)r * depth + k);
#pragma GCC unroll 4
        for (int c = 0; c < n; c++) {
            vec right = load(w + (ptrdiff_t)c * depth + k);
#pragma GCC unroll 4
            for (int r = 0; r < m; r++) total[r][c] += left[r] * right;
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < m; r++)
#pragma GCC unroll 4
        for (int c = 0; c < n; c++) {
            float value = sum(total[r][c]);
            for (int i = k; i < depth; i++) value += x[(ptrdiff_t)r * depth + i] * w[(ptrdiff_t)c * depth + i];
            d->y[(place + r) * d->y_row + output + c] = value + (d->bias ? d->bias[output + c] : 0);
        }
}

void ea_dense_dots(const ea_dots *d, range outputs) {
    for (int o = outputs.first; o < outputs.last; o += ROWS) {
        int whole = o + ROWS <= outputs.last, place = 0;
        if (whole)
            for (; place + ROWS <= d->places; place += ROWS) dots(ROWS, ROWS, d, place, o);
        for (; place < d->places; place++)
            if (whole) dots(1, ROWS, d, place, o);
            else
                for (int i = o; i < outputs.last; i++) dots(1, 1, d, place, i);
    }
}

/* Columns are done in whole tiles, then one that is moved left so that it stays inside the row: of it only the last
   columns count. Narrower rows go column by column. */
typedef struct {
    int first, columns, skip; /* where the tile starts, its width, and its columns that are done already */
} span;

static span next_span(int done, range all) {
    span s = {done, smaller(TILE_COLUMNS, all.last - done), 0};
    int width = ea_tile_width(s.columns);
    if (s.columns == width) return s;
    if (all.last - all.first < width) return (span){done, 1, 0};
    return (span){all.last - width, width, done - (all.last - width)};
}

static void one_column(const ea_run_product *p, int rows, float *tile) {
    for (int r = 0; r < rows; r++) {
        tile[r * WIDEST_TILE] = 0;
        for (int k = 0; k < p->length; k++) tile[r * WIDEST_TILE] += p->a[r * p->row + k * p->step] * p->b[k * p->b_row];
    }
}

static void span_tile(const ea_dense *d, span s, range rows) {
    float tile[TILE_ROWS * WIDEST_TILE];
    int count = rows.last - rows.first;
    ea_run_product p = {d->a + rows.first * d->row, d->row, 0, d->step, d->b + s.first, 0, d->b_row, 1, d->depth};
    ea_target to = {tile, WIDEST_TILE, 1, NULL, count, s.columns, 0};
    if (s.columns == 1) one_column(&p, count, tile);
    else ea_tile_runs(&p, &to);
    for (int r = 0; r < count; r++) {
        float *c = d->c + (rows.first + r) * d->c_row + s.first, scale = d->scale ? d->scale[rows.first + r] : 1;
        for (int i = s.skip; i < s.columns; i++) {
            float value = tile[r * WIDEST_TILE + i] * scale * (d->column_scale ? d->column_scale[s.first + i] : 1);
            c[i] = d->add ? c[i] + value : value;
        }
    }
}

void ea_dense_product(const ea_dense *d, range columns) {
    for (int block = 0; block < row_blocks(d->rows); block++)
        for (int done = columns.first; done < columns.last;) {
            span s = next_span(done, columns);
            span_tile(d, s, row_block(d->rows, block));
            done = s.first + s.columns;
        }
}
