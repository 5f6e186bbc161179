/* Squared Mahalanobis distances to classes: kernel (see abi.h and docs/program.md). */
#ifndef EA_MAHALANOBIS_H
#define EA_MAHALANOBIS_H

#include "abi.h"

ea_run ea_mahalanobis_run;
ea_need ea_mahalanobis_need;

#endif
