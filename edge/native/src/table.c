/* The operations by code. */
#include "abi.h"

#include "attention.h"
#include "conv.h"
#include "fc.h"
#include "loss.h"
#include "pointwise.h"
#include "pool.h"
#include "sums.h"

#ifdef _OPENMP
#define PARALLEL 1
#else
#define PARALLEL 0
#endif

static int64_t no_workspace(const ea_call *call) {
    (void)call;
    return 0;
}

static const ea_operation operations[] = {
    {"Conv", ea_conv_run, ea_conv_need},
    {"ConvInputGrad", ea_conv_input_grad_run, ea_conv_input_grad_need},
    {"ConvWeightGrad", ea_conv_weight_grad_run, ea_conv_weight_grad_need},
    {"ConvWeightGradSparse", ea_conv_weight_grad_sparse_run, ea_conv_weight_grad_sparse_need},
    {"Fc", ea_fc_run, no_workspace},
    {"FcInputGrad", ea_fc_input_grad_run, no_workspace},
    {"FcWeightGrad", ea_fc_weight_grad_run, no_workspace},
    {"FcWeightGradSparse", ea_fc_weight_grad_sparse_run, no_workspace},
    {"GroupNorm", ea_group_norm_run, no_workspace},
    {"GroupNormInputGrad", ea_group_norm_input_grad_run, no_workspace},
    {"BiasGrad", ea_bias_grad_run, no_workspace},
    {"ScaleGrad", ea_scale_grad_run, no_workspace},
    {"ScaleGradSparse", ea_scale_grad_sparse_run, no_workspace},
    {"Relu", ea_relu_run, no_workspace},
    {"MaskGrad", ea_mask_grad_run, no_workspace},
    {"MaxPool", ea_max_pool_run, ea_max_pool_need},
    {"MaxPoolGrad", ea_max_pool_grad_run, no_workspace},
    {"Add", ea_add_run, no_workspace},
    {"Sub", ea_sub_run, no_workspace},
    {"Mul", ea_mul_run, no_workspace},
    {"SgdUpdate", ea_sgd_update_run, no_workspace},
    {"Zero", ea_zero_run, no_workspace},
    {"Reshape", ea_reshape_run, no_workspace},
    {"ChannelAttention", ea_channel_attention_run, ea_channel_attention_need},
    {"SelectChannels", ea_select_channels_run, no_workspace},
    {"SoftmaxCrossEntropy", ea_softmax_cross_entropy_run, no_workspace},
    {"MeanSquaredError", ea_mean_squared_error_run, no_workspace},
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
