/* Fully connected layers: kernels (see abi.h and docs/program.md). */
#ifndef EA_FC_H
#define EA_FC_H

#include "abi.h"

ea_run ea_fc_run, ea_fc_input_grad_run, ea_fc_weight_grad_run, ea_fc_weight_grad_sparse_run;

#endif
