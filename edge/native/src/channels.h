/* Parameters of channels or trailing axes: PReLU, Affine, Expand; softmax and LayerNorm over trailing axes. */
#ifndef EA_CHANNELS_H
#define EA_CHANNELS_H

#include "abi.h"

ea_run ea_prelu_run, ea_prelu_input_grad_run, ea_prelu_slope_grad_run;
ea_run ea_affine_run, ea_affine_input_grad_run, ea_expand_run;
ea_run ea_softmax_run, ea_softmax_grad_run, ea_layer_norm_run, ea_layer_norm_input_grad_run;

#endif
