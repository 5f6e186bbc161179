/* Elementary functions without branches, so that loops over them are vectorised. Errors are a few units in the last
   place of float32; NaN gives NaN. */
#ifndef EA_ELEMENTARY_H
#define EA_ELEMENTARY_H

#include "vec.h"

INLINE float magnitude(float x) { return x < 0 ? -x : x; }
INLINE float with_sign_of(float value, float x) { return x < 0 ? -value : value; }

/* 2^n e^r with x = n ln 2 + r, |r| <= ln 2 / 2 (the constants: Cephes, expf). */
INLINE float ea_exp(float x) {
    const float rounding = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    float bounded = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float shifted = bounded * 1.44269504088896341f + rounding, n = shifted - rounding;
    float r = bounded - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    int32_t bits;
    memcpy(&bits, &shifted, 4);
    bits = (int32_t)((uint32_t)(bits - 0x4B400000 + 127) << 23);
    float power;
    memcpy(&power, &bits, 4);
    float result = (p * r * r + r + 1) * power;
    return x < -87.0f ? 0 : result;
}

/* e^x - 1 for x <= 0: near 0 by its series, where the difference would lose digits. */
INLINE float ea_exp_minus_1(float x) {
    float p = 1.0f / 5040;
    p = p * x + 1.0f / 720;
    p = p * x + 1.0f / 120;
    p = p * x + 1.0f / 24;
    p = p * x + 1.0f / 6;
    p = p * x + 0.5f;
    p = p * x + 1;
    return x > -0.35f ? p * x : ea_exp(x) - 1;
}

INLINE float ea_sigmoid(float x) {
    float e = ea_exp(-magnitude(x));
    return (x < 0 ? e : 1) / (1 + e);
}

/* Near 0 by a polynomial (Cephes, tanhf). */
INLINE float ea_tanh(float x) {
    float e = ea_exp(-2 * magnitude(x)), square = x * x, p = -5.70498872745e-3f;
    p = p * square + 2.06390887954e-2f;
    p = p * square - 5.37397155531e-2f;
    p = p * square + 1.33314422036e-1f;
    p = p * square - 3.33332819422e-1f;
    float near = p * square * x + x, far = with_sign_of((1 - e) / (1 + e), x);
    return magnitude(x) < 0.625f ? near : far;
}

/* erfc(z) for z >= 0, and e^(-z^2) as it is needed beside it (after Shepherd and Laframboise 1981, as in
   edge/reference/erf.py). */
INLINE float ea_erfc(float z, float *gauss) {
    static const float series[18] = {
        0.32158541645431743f,   0.36815156489826f,      0.2014388568192337f,     0.08162684513404897f,
        0.023308261232416402f,  0.003956151636235417f,  7.012531579427468e-05f,  -0.00012716419745468802f,
        -1.5153812914349002e-05f, 4.532601268477542e-06f, 8.118459150811032e-07f, -2.27531318174732e-07f,
        -3.487562573957687e-08f, 1.4442773702850798e-08f, 9.011530125430885e-10f, -9.277638517466733e-10f,
        1.9979406473045617e-11f, 4.368095339148078e-11f};
    float bounded = z > 12 ? 12 : z, s = 9 / (3 + (bounded > 6 ? 6 : bounded)) - 2, p = series[17];
#pragma GCC unroll 17
    for (int i = 16; i >= 0; i--) p = p * s + series[i];
    *gauss = ea_exp(-bounded * bounded);
    return p * *gauss;
}

#endif
