/* Convolution geometry. A 1-D convolution is one of a single row. */
#ifndef EA_WINDOW_H
#define EA_WINDOW_H

#include "vec.h"

typedef struct {
    int size, kernel, stride, pad, dilation, out;
} ea_axis;

/* Channels and outputs are those of one group. */
typedef struct {
    int samples, groups, channels, outputs;
    ea_axis rows, columns;
    int lean;
} ea_conv;

/* Attributes: strides, pads (begins, ends), dilations, each rows first; groups; whether to save workspace, not time. */
enum { STRIDE = 0, PAD = 2, DILATION = 6, GROUPS = 8, LEAN = 9 };

INLINE int taps_of(const ea_conv *c) { return c->rows.kernel * c->columns.kernel; }
INLINE int positions_of(const ea_conv *c) { return c->rows.out * c->columns.out; }
INLINE int plane_of(const ea_conv *c) { return c->rows.size * c->columns.size; }
INLINE int depth_of(const ea_conv *c) { return c->channels * taps_of(c); }

/* What Winograd's algorithm is for, where workspace need not be saved. */
INLINE int is_plain_3x3(const ea_conv *c) {
    const ea_axis *y = &c->rows, *x = &c->columns;
    int plain = y->stride == 1 && x->stride == 1 && y->dilation == 1 && x->dilation == 1;
    return y->kernel == 3 && x->kernel == 3 && plain && c->groups == 1 && !c->lean;
}

/* The geometry from the shapes of the map that is read, (N, C, [H,] W), and the weight (O, C/groups, [kh,] kw). */
INLINE ea_conv conv_geometry(const ea_tensor *x, const ea_tensor *w, const ea_attr *attrs) {
    ea_conv c = {x->shape[0], attrs[GROUPS].i, w->shape[1], w->shape[0] / attrs[GROUPS].i, {0}, {0}, attrs[LEAN].i};
    for (int axis = 0; axis < 2; axis++) {
        ea_axis *a = axis ? &c.columns : &c.rows;
        int at = x->rank - 2 + axis;
        a->size = at < 2 ? 1 : x->shape[at];
        a->kernel = at < 2 ? 1 : w->shape[at];
        a->stride = attrs[STRIDE + axis].i;
        a->pad = attrs[PAD + axis].i;
        a->dilation = attrs[DILATION + axis].i;
        int padded = a->size + a->pad + attrs[PAD + 2 + axis].i;
        a->out = (padded - a->dilation * (a->kernel - 1) - 1) / a->stride + 1;
    }
    return c;
}

/* Which outputs of first..last meet an input at `offset` (tap * dilation - pad): [first, last). */
INLINE range meets(const ea_axis *a, int offset, int first, int last) {
    range r = {larger(first, -floor_div(offset, a->stride)),
               smaller(last, floor_div(a->size - 1 - offset, a->stride) + 1)};
    if (r.last < r.first) r.last = r.first;
    return r;
}

#endif
