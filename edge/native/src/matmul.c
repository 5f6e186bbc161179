/* Products of matrices that are both activations: y = a b over the last two axes, either of them transposed first. */
#include "dense.h"
#include "parallel.h"
#include "shape.h"

typedef struct {
    const float *a, *b;
    float *y;
    int count, rows, columns, depth, transpose_a, transpose_b;
} job;

/* a (K, M) and b (N, K): rare, so a plain loop. */
static void both_transposed(const job *j, const float *a, const float *b, float *y) {
    for (int r = 0; r < j->rows; r++)
        for (int c = 0; c < j->columns; c++) {
            float total = 0;
            for (int k = 0; k < j->depth; k++)
                total += a[(ptrdiff_t)k * j->rows + r] * b[(ptrdiff_t)c * j->depth + k];
            y[(ptrdiff_t)r * j->columns + c] = total;
        }
}

static void one_product(const job *j, const float *a, const float *b, float *y) {
    range columns = {0, j->columns};
    if (j->transpose_b && j->transpose_a) {
        both_transposed(j, a, b, y);
    } else if (j->transpose_b) {
        ea_dots d = {a, b, NULL, y, j->rows, j->depth, j->columns};
        ea_dense_dots(&d, columns);
    } else {
        ea_dense d = {.a = a, .row = j->transpose_a ? 1 : j->depth, .step = j->transpose_a ? j->rows : 1, .b = b,
                      .b_row = j->columns, .c = y, .c_row = j->columns, .rows = j->rows, .depth = j->depth};
        ea_dense_product(&d, columns);
    }
}

static void products_part(const void *context, ea_share share) {
    const job *j = context;
    range products = share_of(j->count, share);
    for (int i = products.first; i < products.last; i++)
        one_product(j, j->a + (ptrdiff_t)i * j->rows * j->depth, j->b + (ptrdiff_t)i * j->depth * j->columns,
                    j->y + (ptrdiff_t)i * j->rows * j->columns);
}

/* Attributes: transA, transB. */
int32_t ea_matmul_run(const ea_call *call) {
    const ea_tensor *a = call->inputs[0], *y = call->outputs[0];
    int rank = y->rank, transpose_a = call->attrs[0].i;
    job j = {.a = floats(a), .b = floats(call->inputs[1]), .y = writable(y), .rows = y->shape[rank - 2],
             .columns = y->shape[rank - 1], .depth = a->shape[transpose_a ? rank - 2 : rank - 1],
             .transpose_a = transpose_a, .transpose_b = call->attrs[1].i};
    j.count = (int)(elements(y) / ((int64_t)j.rows * j.columns));
    ea_parallel(ea_worth(elements(y) * j.depth, call->threads), products_part, &j);
    return EA_OK;
}
