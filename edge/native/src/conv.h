/* Convolutions: kernels (see abi.h and docs/program.md). */
#ifndef EA_CONV_H
#define EA_CONV_H

#include "abi.h"

ea_run ea_conv_run, ea_conv_input_grad_run, ea_conv_weight_grad_run, ea_conv_weight_grad_sparse_run;
ea_need ea_conv_need, ea_conv_input_grad_need, ea_conv_weight_grad_need, ea_conv_weight_grad_sparse_need;

#endif
