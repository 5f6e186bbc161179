/* Losses: kernels (see abi.h and docs/program.md). */
#ifndef EA_LOSS_H
#define EA_LOSS_H

#include "abi.h"

ea_run ea_softmax_cross_entropy_run, ea_mean_squared_error_run;
ea_run ea_categorical_policy_gradient_run, ea_gaussian_policy_gradient_run, ea_gaussian_log_std_grad_run;

#endif
