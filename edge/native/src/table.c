/* The operations by code. */
#include "abi.h"

#include "conv.h"
#include "fc.h"
#include "vec.h"

#ifdef _OPENMP
#define PARALLEL 1
#else
#define PARALLEL 0
#endif

int64_t ea_no_workspace(const ea_call *call) {
    (void)call;
    return 0;
}

static const ea_operation operations[] = {
    {"Conv", ea_conv_run, ea_conv_need},
    {"ConvInputGrad", ea_conv_input_grad_run, ea_conv_input_grad_need},
    {"ConvWeightGrad", ea_conv_weight_grad_run, ea_conv_weight_grad_need},
    {"ConvWeightGradSparse", ea_conv_weight_grad_sparse_run, ea_conv_weight_grad_sparse_need},
    {"Fc", ea_fc_run, ea_no_workspace},
    {"FcInputGrad", ea_fc_input_grad_run, ea_no_workspace},
    {"FcWeightGrad", ea_fc_weight_grad_run, ea_no_workspace},
    {"FcWeightGradSparse", ea_fc_weight_grad_sparse_run, ea_no_workspace},
};

enum { COUNT = sizeof(operations) / sizeof(*operations) };

int32_t ea_abi(void) { return EA_ABI; }
const char *ea_instruction_set(void) { return EA_ISA; }
int32_t ea_parallel_available(void) { return PARALLEL; }
int32_t ea_operation_count(void) { return COUNT; }
const char *ea_operation_name(int32_t code) { return code >= 0 && code < COUNT ? operations[code].name : ""; }
int64_t ea_workspace_bytes(int32_t code, const ea_call *call) {
    return code >= 0 && code < COUNT ? operations[code].need(call) : -1;
}
int32_t ea_run_operation(int32_t code, const ea_call *call) {
    return code >= 0 && code < COUNT ? operations[code].run(call) : EA_UNKNOWN_OPERATION;
}
