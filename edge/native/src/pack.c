#include "pack.h"

void ea_pack_gradient(const float *gy, ptrdiff_t row, int positions, int outputs, const float *factor,
                          float *panel) {
    for (int o = 0; o < TILE_COLUMNS; o += 4) {
        int p = 0;
        for (int i = 0; i < 4; i++) __builtin_prefetch(gy + (o + 4 + i) * row);
        if (o + 4 <= outputs)
            for (; p + 4 <= positions; p += 4) {
                vec4 rows[4];
                for (int i = 0; i < 4; i++) rows[i] = load4(gy + (o + i) * row + p) * factor[o + i];
                transpose4(rows);
                for (int i = 0; i < 4; i++) store4(panel + (p + i) * TILE_COLUMNS + o, rows[i]);
            }
        for (; p < positions; p++)
            for (int i = 0; i < 4; i++)
                panel[p * TILE_COLUMNS + o + i] = o + i < outputs ? gy[(o + i) * row + p] * factor[o + i] : 0;
    }
}

void ea_add_transposed(const float *tile, int count, int outputs, float factor, float *gw, ptrdiff_t row) {
    int o = 0;
    for (; o + 4 <= outputs; o += 4) {
        int e = 0;
        for (; e + 4 <= count; e += 4) {
            vec4 rows[4];
            for (int i = 0; i < 4; i++) rows[i] = load4(tile + (e + i) * TILE_COLUMNS + o);
            transpose4(rows);
            for (int i = 0; i < 4; i++) {
                float *to = gw + (o + i) * row + e;
                store4(to, load4(to) + rows[i] * factor);
            }
        }
        for (; e < count; e++)
            for (int i = 0; i < 4; i++) gw[(o + i) * row + e] += tile[e * TILE_COLUMNS + o + i] * factor;
    }
    for (; o < outputs; o++)
        for (int e = 0; e < count; e++) gw[o * row + e] += tile[e * TILE_COLUMNS + o] * factor;
}
