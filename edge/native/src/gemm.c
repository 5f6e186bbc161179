#include "gemm.h"

/* The accumulators go through memory where C is not written as whole contiguous rows. */
static void put(const ea_target *to, const float *tile, int width) {
    for (int r = 0; r < to->rows; r++) {
        float *c = to->c + r * to->row;
        const float *from = tile + r * width, bias = to->bias ? to->bias[r] : 0;
        for (int j = 0; j < to->columns; j++) {
            float value = from[j] + bias;
            c[j * to->step] = to->add ? c[j * to->step] + value : value;
        }
    }
}

/* Products of `rows` rows and V vectors of type T; rows and V are constants where it is inlined. Rows are
   addressed as q[0], q[s], q[2s] from a pointer moved every third row: few registers. */
#define FOR_ROWS _Pragma("GCC unroll 16") for (int r = 0; r < rows; r++)
#define FOR_VECTORS _Pragma("GCC unroll 4") for (int v = 0; v < V; v++)
#define MULTIPLY_ADD(from)                                                                      \
    {                                                                                           \
        T b[V];                                                                                 \
        const float *q = (from);                                                                \
        FOR_VECTORS b[v] = *(const U *)(bp + v * (int)(sizeof(T) / 4));                         \
        FOR_ROWS {                                                                              \
            float a = q[r % 3 * p->row];                                                        \
            if (r % 3 == 2) q += 3 * p->row;                                                    \
            FOR_VECTORS sums[r][v] += a * b[v];                                                 \
        }                                                                                       \
    }
#define WRITE_TILE                                                                              \
    enum { WIDTH = V * (int)(sizeof(T) / 4) };                                                  \
    if (to->columns == WIDTH && to->step == 1) {                                                \
        FOR_ROWS {                                                                              \
            const float bias = to->bias ? to->bias[r] : 0;                                      \
            FOR_VECTORS {                                                                       \
                U *c = (U *)(to->c + r * to->row + v * (int)(sizeof(T) / 4));                   \
                T value = sums[r][v] + bias;                                                    \
                if (to->add) value += *c;                                                       \
                *c = value;                                                                     \
            }                                                                                   \
        }                                                                                       \
    } else {                                                                                    \
        float tile[TILE_ROWS * WIDTH];                                                          \
        FOR_ROWS FOR_VECTORS *(U *)(tile + r * WIDTH + v * (int)(sizeof(T) / 4)) = sums[r][v];  \
        put(to, tile, WIDTH);                                                                   \
    }

#define DEFINE_TILES(NAME, TYPE, UNALIGNED, VECTORS)                                            \
    INLINE void NAME(const int rows, const ea_product *p, const ea_target *to) {                \
        typedef TYPE T;                                                                         \
        typedef UNALIGNED U;                                                                    \
        enum { V = VECTORS };                                                                   \
        T sums[TILE_ROWS][V];                                                                   \
        FOR_ROWS FOR_VECTORS sums[r][v] = (T){0};                                               \
        const float *bp = p->b;                                                                 \
        const int32_t *offset = p->offset;                                                      \
        for (int k = 0; k < p->depth; k++, bp += p->b_row) {                                    \
            __builtin_prefetch(p->a + offset[k + EA_LOOK_AHEAD] + k % 8 * 16);                  \
            MULTIPLY_ADD(p->a + offset[k])                                                      \
        }                                                                                       \
        WRITE_TILE                                                                              \
    }                                                                                           \
    INLINE void NAME##_runs(const int rows, const ea_run_product *p, const ea_target *to) {     \
        typedef TYPE T;                                                                         \
        typedef UNALIGNED U;                                                                    \
        enum { V = VECTORS };                                                                   \
        T sums[TILE_ROWS][V];                                                                   \
        FOR_ROWS FOR_VECTORS sums[r][v] = (T){0};                                               \
        for (int j = 0; j < p->runs; j++) {                                                     \
            const float *bp = p->b + j * p->b_run, *ap = p->a + j * p->run;                     \
            for (int k = 0; k < p->length; k++, bp += p->b_row, ap += p->step) MULTIPLY_ADD(ap) \
        }                                                                                       \
        WRITE_TILE                                                                              \
    }

#if TILE_ROWS > 6
#define MORE_ROWS(NAME) \
    CASE(NAME, 7) CASE(NAME, 8) CASE(NAME, 9) CASE(NAME, 10) CASE(NAME, 11) CASE(NAME, 12) CASE(NAME, 13) \
    CASE(NAME, 14)
#else
#define MORE_ROWS(NAME)
#endif
#define CASE(NAME, R) case R: NAME(R, p, to); break;
#define DISPATCH(NAME) \
    switch (to->rows) { \
        CASE(NAME, 1) CASE(NAME, 2) CASE(NAME, 3) CASE(NAME, 4) CASE(NAME, 5) CASE(NAME, 6) MORE_ROWS(NAME) \
    }
#define DEFINE_DISPATCH(NAME) \
    static __attribute__((noinline)) void NAME##_any(const ea_product *p, const ea_target *to) { DISPATCH(NAME) } \
    static __attribute__((noinline)) void NAME##_runs_any(const ea_run_product *p, const ea_target *to) { \
        DISPATCH(NAME##_runs) \
    }

DEFINE_TILES(full, vec, vec_any, TILE_VECTORS)
DEFINE_DISPATCH(full)
DEFINE_TILES(eight, vec8, vec8_any, 1)
DEFINE_DISPATCH(eight)
#if LANES == 16
DEFINE_TILES(sixteen, vec, vec_any, 1)
DEFINE_DISPATCH(sixteen)
#endif

int ea_tile_width(int columns) {
    if (columns <= 8) return 8;
    return columns <= 16 ? smaller(16, TILE_COLUMNS) : TILE_COLUMNS;
}

void ea_tile(const ea_product *p, const ea_target *to) {
    if (TILE_COLUMNS > 8 && to->columns <= 8) eight_any(p, to);
#if LANES == 16
    else if (to->columns <= 16) sixteen_any(p, to);
#endif
    else full_any(p, to);
}

void ea_tile_runs(const ea_run_product *p, const ea_target *to) {
    if (TILE_COLUMNS > 8 && to->columns <= 8) eight_runs_any(p, to);
#if LANES == 16
    else if (to->columns <= 16) sixteen_runs_any(p, to);
#endif
    else full_runs_any(p, to);
}
