/* Max pooling: kernels (see abi.h and docs/program.md). */
#ifndef EA_POOL_H
#define EA_POOL_H

#include "abi.h"

ea_run ea_max_pool_run, ea_max_pool_grad_run;
ea_need ea_max_pool_need;

#endif
