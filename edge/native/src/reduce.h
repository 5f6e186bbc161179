/* Sums and means over axes, and their gradients: kernels (see abi.h and docs/program.md). */
#ifndef EA_REDUCE_H
#define EA_REDUCE_H

#include "abi.h"

ea_run ea_sum_to_run, ea_mul_grad_run, ea_mean_run, ea_mean_grad_run;

#endif
