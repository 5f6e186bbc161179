/* Average pooling and resizing: kernels (see abi.h and docs/program.md). */
#ifndef EA_MAPS_H
#define EA_MAPS_H

#include "abi.h"

ea_run ea_average_pool_run, ea_average_pool_grad_run, ea_resize_run, ea_resize_grad_run;

#endif
