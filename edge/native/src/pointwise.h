/* Operations that treat every element alike: kernels (see abi.h and docs/program.md). */
#ifndef EA_POINTWISE_H
#define EA_POINTWISE_H

#include "parallel.h"
#include "vec.h"

ea_run ea_add_run, ea_sub_run, ea_mul_run, ea_sgd_update_run, ea_zero_run, ea_reshape_run;
ea_run ea_relu_run, ea_clip_run, ea_leaky_relu_run, ea_hard_sigmoid_run, ea_mask_grad_run;
ea_run ea_scale_run;

enum {
    MOVES_PER_MULTIPLY = 4, /* an element moved takes about as long as so many multiply-adds */
    PIECE = 64,             /* threads share elements in pieces of so many, whole bytes of a mask */
};

/* Threads that pay for moving so many elements. */
INLINE int worth_moving(int64_t count, int threads) { return ea_worth(count * MOVES_PER_MULTIPLY, threads); }

/* The elements, of `count`, that are a share's. */
INLINE range share_of_elements(int64_t count, ea_share share) { return share_of_pieces((int)count, PIECE, share); }

#endif
