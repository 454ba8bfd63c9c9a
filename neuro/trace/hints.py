"""What to write instead of an operation the Graph has no node for."""

from __future__ import annotations

_RECURRENT = (
    "recurrent layers keep a hidden state; write one step with spiking neurons, or unfold it into feed-forward layers"
)
_ATTENTION = "attention multiplies two signals, and no node does; use convolution or fully connected layers instead"
_NORM = "statistics of the running sample have no node; train with BatchNorm, whose statistics are fixed at inference"
_CURVE = "no node has this curve; train with ReLU, LeakyReLU or Hardtanh, or register a rule for the module"
_PRODUCT = "products of two signals have no node; only constants may multiply a signal"
_RESIZE = "this resizing has no node; use mode='nearest' with a whole scale_factor, a transposed convolution or pooling"
_LOOKUP = "table look-ups have no node; encode the data as real numbers before the network"
_RANDOM = "a traced network must be deterministic; pass training=self.training to dropout and draw no random numbers"
_DECIDE = "decisions on data belong after the network; return the scores and take argmax or topk outside"
_SWITCH = "no node selects by the data; use ReLU or clamp, or take the decision outside the network"
_FALLBACK = (
    "no rule; replace it by a supported operation, or put it in a module and open the tracer with neuro.trace.register"
)

MODULES: dict[str, str] = {
    **dict.fromkeys(("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"), _RECURRENT),
    **dict.fromkeys(("MultiheadAttention", "Transformer", "TransformerEncoder", "TransformerDecoder"), _ATTENTION),
    **dict.fromkeys(("TransformerEncoderLayer", "TransformerDecoderLayer"), _ATTENTION),
    **dict.fromkeys(("LayerNorm", "GroupNorm", "RMSNorm", "LocalResponseNorm"), _NORM),
    **dict.fromkeys(("InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"), _NORM),
    **dict.fromkeys(("Embedding", "EmbeddingBag"), _LOOKUP),
}
"""Modules that export takes apart, reported whole: class name -> rewrite."""

_OPERATIONS: dict[str, str] = {
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell"), _RECURRENT),
    **dict.fromkeys(("scaled_dot_product_attention", "_native_multi_head_attention"), _ATTENTION),
    "_transformer_encoder_layer_fwd": _ATTENTION,
    **dict.fromkeys(("bmm", "baddbmm", "einsum", "mul", "matmul", "mm", "dot", "outer", "multiply"), _PRODUCT),
    **dict.fromkeys(
        ("layer_norm", "group_norm", "instance_norm", "rms_norm", "native_layer_norm", "var", "std"), _NORM
    ),
    **dict.fromkeys(("gelu", "silu", "elu", "selu", "celu", "mish", "softplus", "softsign"), _CURVE),
    **dict.fromkeys(("hardswish", "hardsigmoid", "exp", "log", "sqrt", "rsqrt", "pow", "sin", "cos"), _CURVE),
    **dict.fromkeys(("upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d", "interpolate"), _RESIZE),
    **dict.fromkeys(("embedding", "embedding_bag", "gather", "index", "index_select"), _LOOKUP),
    **dict.fromkeys(("rand", "randn", "rand_like", "randn_like", "bernoulli", "randint", "randperm"), _RANDOM),
    **dict.fromkeys(("argmax", "argmin", "topk", "sort", "max", "min"), _DECIDE),
    **dict.fromkeys(("where", "masked_fill", "gt", "lt", "ge", "le", "eq", "sign", "heaviside"), _SWITCH),
    "while_loop": "loops on data have no node; use a fixed number of layers",
    "cond": "control flow on data has no node; use a fixed path through the network",
    "wrap_with_set_grad_enabled": "no node; remove torch.enable_grad from forward",
    "wrap_with_autocast": "autocast regions have no node; remove autocast around the network",
}


def hint(operation: str) -> str:
    """The rewrite for an ATen operation, named without namespace and overload."""
    return _OPERATIONS.get(operation, _OPERATIONS.get(operation.rstrip("_"), _FALLBACK))
