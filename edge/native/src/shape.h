/* Operations that move values without computing: kernels (see abi.h and docs/program.md). */
#ifndef EA_SHAPE_H
#define EA_SHAPE_H

#include "abi.h"

ea_run ea_transpose_run, ea_concat_run, ea_slice_run, ea_pad_run, ea_matmul_run;

#endif
