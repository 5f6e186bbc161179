/* Meta attention: kernels (see abi.h and docs/program.md). */
#ifndef EA_ATTENTION_H
#define EA_ATTENTION_H

#include "abi.h"

ea_run ea_channel_attention_run, ea_select_channels_run;
ea_need ea_channel_attention_need;

#endif
