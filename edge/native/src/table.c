/* The operations by code. */
#include "abi.h"

#include "attention.h"
#include "channels.h"
#include "conv.h"
#include "fc.h"
#include "loss.h"
#include "mahalanobis.h"
#include "maps.h"
#include "pointwise.h"
#include "pool.h"
#include "quantise.h"
#include "reduce.h"
#include "shape.h"
#include "smooth.h"
#include "sums.h"

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
    {"Quantise", ea_quantise_run, no_workspace},
    {"Dequantise", ea_dequantise_run, no_workspace},
    {"SoftmaxCrossEntropy", ea_softmax_cross_entropy_run, no_workspace},
    {"MeanSquaredError", ea_mean_squared_error_run, no_workspace},
    {"Clip", ea_clip_run, no_workspace},
    {"LeakyRelu", ea_leaky_relu_run, no_workspace},
    {"HardSigmoid", ea_hard_sigmoid_run, no_workspace},
    {"Scale", ea_scale_run, no_workspace},
    {"SumTo", ea_sum_to_run, no_workspace},
    {"MulGrad", ea_mul_grad_run, no_workspace},
    {"Mean", ea_mean_run, no_workspace},
    {"MeanGrad", ea_mean_grad_run, no_workspace},
    {"AveragePool", ea_average_pool_run, no_workspace},
    {"AveragePoolGrad", ea_average_pool_grad_run, no_workspace},
    {"Resize", ea_resize_run, no_workspace},
    {"ResizeGrad", ea_resize_grad_run, no_workspace},
    {"Transpose", ea_transpose_run, no_workspace},
    {"Concat", ea_concat_run, no_workspace},
    {"Slice", ea_slice_run, no_workspace},
    {"Pad", ea_pad_run, no_workspace},
    {"MatMul", ea_matmul_run, no_workspace},
    {"Elu", ea_elu_run, no_workspace},
    {"EluGrad", ea_elu_grad_run, no_workspace},
    {"Sigmoid", ea_sigmoid_run, no_workspace},
    {"SigmoidGrad", ea_sigmoid_grad_run, no_workspace},
    {"Tanh", ea_tanh_run, no_workspace},
    {"TanhGrad", ea_tanh_grad_run, no_workspace},
    {"Silu", ea_silu_run, no_workspace},
    {"SiluGrad", ea_silu_grad_run, no_workspace},
    {"HardSwish", ea_hard_swish_run, no_workspace},
    {"HardSwishGrad", ea_hard_swish_grad_run, no_workspace},
    {"Gelu", ea_gelu_run, no_workspace},
    {"GeluGrad", ea_gelu_grad_run, no_workspace},
    {"PRelu", ea_prelu_run, no_workspace},
    {"PReluInputGrad", ea_prelu_input_grad_run, no_workspace},
    {"PReluSlopeGrad", ea_prelu_slope_grad_run, no_workspace},
    {"Affine", ea_affine_run, no_workspace},
    {"AffineInputGrad", ea_affine_input_grad_run, no_workspace},
    {"Expand", ea_expand_run, no_workspace},
    {"Softmax", ea_softmax_run, no_workspace},
    {"SoftmaxGrad", ea_softmax_grad_run, no_workspace},
    {"LayerNorm", ea_layer_norm_run, no_workspace},
    {"LayerNormInputGrad", ea_layer_norm_input_grad_run, no_workspace},
    {"CategoricalPolicyGradient", ea_categorical_policy_gradient_run, no_workspace},
    {"GaussianPolicyGradient", ea_gaussian_policy_gradient_run, no_workspace},
    {"GaussianLogStdGrad", ea_gaussian_log_std_grad_run, no_workspace},
    {"Mahalanobis", ea_mahalanobis_run, ea_mahalanobis_need},
};

enum { COUNT = sizeof(operations) / sizeof(*operations) };

int32_t ea_abi(void) { return EA_ABI; }
const char *ea_instruction_set(void) { return EA_ISA; }
int32_t ea_operation_count(void) { return COUNT; }
const char *ea_operation_name(int32_t code) { return code >= 0 && code < COUNT ? operations[code].name : ""; }
int32_t ea_has_workspace(int32_t code) { return code >= 0 && code < COUNT && operations[code].need != no_workspace; }
int64_t ea_workspace_bytes(int32_t code, const ea_call *call) {
    return code >= 0 && code < COUNT ? operations[code].need(call) : -1;
}
int32_t ea_run_operation(int32_t code, const ea_call *call) {
    return code >= 0 && code < COUNT ? operations[code].run(call) : EA_UNKNOWN_OPERATION;
}
