"""What to use instead of an operator that has no rule."""

from __future__ import annotations

_INDEXED = "take fixed parts with slices and join them with torch.cat"
_RECURRENT = "recurrent layers are not supported; use 1-D convolutions or attention over the sequence"
_CHOICE = "a choice by value has no rule; multiply by a mask, or use relu, clamp or a sigmoid gate"
_INTEGER = "look-ups by integers stay outside the network; start at the embedding's output"
_LINEAR = "write it as linear layers, torch.matmul and transposes"
_FOURIER = "compute spectra before the network, as part of the preprocessing"
_RANDOM = "random numbers make the training irreproducible; remove them (dropout disappears by itself)"
_REDUCED = "use a mean (times a number, for a sum) or a max-pool over fixed windows"
_LOOP = "write the loop out, with a fixed number of rounds"
_POWER = "multiply the value by itself, or use one of the supported activations"
_SMOOTH = "use one of the supported activations: relu, gelu, silu, elu, sigmoid, tanh, hardswish"

SUGGESTIONS: dict[str, str] = {
    "LSTM": _RECURRENT,
    "GRU": _RECURRENT,
    "RNN": _RECURRENT,
    "Scan": _LOOP,
    "Loop": _LOOP,
    "If": "decide in Python before the export, or compute both and mix them",
    "Einsum": _LINEAR,
    "ConvTranspose": "use torch.nn.Upsample followed by a convolution",
    "DeformConv": "use a plain convolution",
    "CumSum": "use a linear layer with a triangular weight",
    "Where": _CHOICE,
    "Greater": _CHOICE,
    "Less": _CHOICE,
    "Equal": _CHOICE,
    "ScatterND": f"it writes into a part of a tensor; {_INDEXED}",
    "ScatterElements": f"it writes into a part of a tensor; {_INDEXED}",
    "Gather": f"only constant indices are supported; {_INTEGER}",
    "GatherND": f"{_INDEXED}; adaptive pools need sizes that they divide evenly, torch.nn.Upsample the mode nearest or "
    "bilinear",
    "GatherElements": _INDEXED,
    "OneHot": _INTEGER,
    "NonZero": "its size depends on the values of the data; use fixed sizes",
    "TopK": "its choice depends on the values of the data; use a softmax over all of them",
    "ArgMax": "it has no gradient; use a softmax",
    "DFT": _FOURIER,
    "STFT": _FOURIER,
    "RandomNormalLike": _RANDOM,
    "RandomUniformLike": _RANDOM,
    "RandomNormal": _RANDOM,
    "Bernoulli": _RANDOM,
    "Dropout": _RANDOM,
    "ReduceSum": _REDUCED,
    "ReduceMax": _REDUCED,
    "ReduceMin": _REDUCED,
    "ReduceProd": _REDUCED,
    "ReduceL2": _REDUCED,
    "ReduceL1": _REDUCED,
    "LpPool": _REDUCED,
    "Pow": _POWER,
    "Sqrt": _POWER,
    "Reciprocal": _POWER,
    "Div": "divide by a constant, or use a norm layer",
    "Exp": _SMOOTH,
    "Log": _SMOOTH,
    "LogSoftmax": "return the logits: the loss takes the softmax itself",
    "Erf": _SMOOTH,
    "Selu": _SMOOTH,
    "Celu": _SMOOTH,
    "Mish": _SMOOTH,
    "Softplus": _SMOOTH,
    "Softsign": _SMOOTH,
    "ThresholdedRelu": _SMOOTH,
    "Abs": _SMOOTH,
    "Sin": _SMOOTH,
    "Cos": _SMOOTH,
    "Max": "use relu(a - b) + b",
    "Min": "use a - relu(a - b)",
    "Tile": "add a broadcasting tensor instead of a repeated one",
    "Expand": "add a broadcasting tensor instead of a repeated one",
    "DepthToSpace": "use reshape and transpose, or torch.nn.Upsample and a convolution",
    "SpaceToDepth": "use a convolution with a stride",
    "LRN": "use torch.nn.GroupNorm",
    "BatchNormalization": "export it with its running statistics, in evaluation mode",
    "InstanceNormalization": "use torch.nn.InstanceNorm2d or GroupNorm",
    "MaxPool": "use a max-pool without dilation, over one fixed window",
    "AveragePool": "use an average pool over one fixed window",
    "GridSample": "use torch.nn.Upsample with a fixed factor",
}
_OTHERWISE = "rewrite it with supported operations (docs/program.md lists them)"


def suggestion(op_type: str) -> str:
    """What to do about an operator without a rule, in one clause."""
    return SUGGESTIONS.get(op_type, _OTHERWISE)
