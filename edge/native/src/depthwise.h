/* Convolutions whose groups have one channel each: no matrix product, every map by itself. */
#ifndef EA_DEPTHWISE_H
#define EA_DEPTHWISE_H

#include "window.h"

enum { MOST_MULTIPLIER = 8 };

INLINE int ea_is_depthwise(const ea_conv *c) {
    return c->groups > 1 && c->channels == 1 && c->outputs <= MOST_MULTIPLIER;
}

ea_run ea_depthwise_run, ea_depthwise_input_grad_run, ea_depthwise_weight_grad_run;
int64_t ea_depthwise_need(const ea_conv *c, int threads); /* of any of the three */

#endif
