/* Vectors of the instruction set this file is compiled for, and small helpers every kernel uses. */
#ifndef EA_VEC_H
#define EA_VEC_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "abi.h"

#if defined(__AVX512F__)
#define EA_ISA "avx512"
#define LANES 16
#define TILE_VECTORS 2
#define TILE_ROWS 14
#elif defined(__AVX2__)
#define EA_ISA "avx2"
#define LANES 8
#define TILE_VECTORS 2
#define TILE_ROWS 6
#elif defined(__aarch64__)
#define EA_ISA "neon"
#define LANES 4
#define TILE_VECTORS 4
#define TILE_ROWS 6
#else
#define EA_ISA "baseline"
#define LANES 4
#define TILE_VECTORS 2
#define TILE_ROWS 6
#endif

#define TILE_COLUMNS (LANES * TILE_VECTORS)
#define WIDEST_TILE 32 /* TILE_COLUMNS divides it on every instruction set: workspaces have one size */
#define MOST_TILE_ROWS 14
#define INLINE static inline __attribute__((always_inline))

/* Before a loop whose rounds do not depend on each other, although an output may be an input's memory. */
#ifdef __clang__
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int32_t ivec __attribute__((vector_size(LANES * 4)));
typedef float vec_any __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t ivec_any __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

typedef float vec8 __attribute__((vector_size(32)));
typedef int32_t ivec8 __attribute__((vector_size(32)));
typedef float vec8_any __attribute__((vector_size(32), aligned(4), may_alias));

typedef float vec4 __attribute__((vector_size(16)));
typedef int32_t ivec4 __attribute__((vector_size(16)));
typedef float vec4_any __attribute__((vector_size(16), aligned(4), may_alias));

INLINE vec load(const float *p) { return *(const vec_any *)p; }
INLINE void store(float *p, vec v) { *(vec_any *)p = v; }
INLINE vec8 load8(const float *p) { return *(const vec8_any *)p; }
INLINE void store8(float *p, vec8 v) { *(vec8_any *)p = v; }
INLINE vec4 load4(const float *p) { return *(const vec4_any *)p; }
INLINE void store4(float *p, vec4 v) { *(vec4_any *)p = v; }

INLINE float sum4(vec4 v) { return (v[0] + v[2]) + (v[1] + v[3]); }

INLINE float sum8(vec8 v) {
    vec4 halves[2];
    memcpy(halves, &v, sizeof v);
    return sum4(halves[0] + halves[1]);
}

INLINE float sum(vec v) {
#if LANES == 16
    vec8 halves[2];
    memcpy(halves, &v, sizeof v);
    return sum8(halves[0] + halves[1]);
#elif LANES == 8
    return sum8(v);
#else
    return sum4(v);
#endif
}

#ifdef __clang__
#define SHUFFLE4(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#define SHUFFLE8(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE4(a, b, i, j, k, l) __builtin_shuffle(a, b, (ivec4){i, j, k, l})
#define SHUFFLE8(a, b, ...) __builtin_shuffle(a, b, (ivec8){__VA_ARGS__})
#endif

/* Transpose four rows of four. */
INLINE void transpose4(vec4 row[4]) {
    vec4 low = SHUFFLE4(row[0], row[1], 0, 4, 1, 5), low2 = SHUFFLE4(row[2], row[3], 0, 4, 1, 5);
    vec4 high = SHUFFLE4(row[0], row[1], 2, 6, 3, 7), high2 = SHUFFLE4(row[2], row[3], 2, 6, 3, 7);
    row[0] = SHUFFLE4(low, low2, 0, 1, 4, 5);
    row[1] = SHUFFLE4(low, low2, 2, 3, 6, 7);
    row[2] = SHUFFLE4(high, high2, 0, 1, 4, 5);
    row[3] = SHUFFLE4(high, high2, 2, 3, 6, 7);
}

INLINE int smaller(int a, int b) { return a < b ? a : b; }
INLINE int larger(int a, int b) { return a > b ? a : b; }
INLINE int ceil_div(int a, int b) { return (a + b - 1) / b; }
INLINE int floor_div(int a, int b) { return a / b - (a % b < 0); }

INLINE int64_t aligned_bytes(int64_t bytes) { return (bytes + EA_ALIGNMENT - 1) / EA_ALIGNMENT * EA_ALIGNMENT; }

/* Elements of a tensor; of one sample. */
INLINE int64_t elements(const ea_tensor *t) {
    int64_t count = 1;
    for (int i = 0; i < t->rank; i++) count *= t->shape[i];
    return count;
}
INLINE int64_t sample_elements(const ea_tensor *t) {
    int64_t count = 1;
    for (int i = 1; i < t->rank; i++) count *= t->shape[i];
    return count;
}

INLINE const float *floats(const ea_tensor *t) { return t ? (const float *)t->data : NULL; }
INLINE float *writable(const ea_tensor *t) { return t ? (float *)t->data : NULL; }

/* Part `index` of `parts` of 0..count, as even as can be: [first, last). */
typedef struct {
    int first, last;
} range;
INLINE range part_of(int count, int index, int parts) {
    range r = {(int)((int64_t)count * index / parts), (int)((int64_t)count * (index + 1) / parts)};
    return r;
}

#endif
