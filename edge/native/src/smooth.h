/* Smooth activations and their gradients: kernels (see abi.h and docs/program.md). */
#ifndef EA_SMOOTH_H
#define EA_SMOOTH_H

#include "abi.h"

ea_run ea_elu_run, ea_elu_grad_run, ea_sigmoid_run, ea_sigmoid_grad_run, ea_tanh_run, ea_tanh_grad_run;
ea_run ea_silu_run, ea_silu_grad_run, ea_hard_swish_run, ea_hard_swish_grad_run, ea_gelu_run, ea_gelu_grad_run;

#endif
