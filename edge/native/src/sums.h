/* Group normalisation, gradients of per-channel scales and shifts: kernels (see abi.h and docs/program.md). */
#ifndef EA_SUMS_H
#define EA_SUMS_H

#include "vec.h"

ea_run ea_group_norm_run, ea_group_norm_input_grad_run;
ea_run ea_bias_grad_run, ea_scale_grad_run, ea_scale_grad_sparse_run;

enum { SUM_PIECE = 1024 }; /* elements added up in float32 before they go into a float64 total */

double ea_sum(const float *x, int64_t count);
double ea_dot(const float *x, const float *y, int64_t count);
/* Sum of (x - shift)^2. */
double ea_spread(const float *x, float shift, int64_t count);

#endif
