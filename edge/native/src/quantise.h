/* Maps in 8 or 16 bits: kernels (see abi.h and docs/program.md). */
#ifndef EA_QUANTISE_H
#define EA_QUANTISE_H

#include "abi.h"

ea_run ea_quantise_run, ea_dequantise_run;

#endif
