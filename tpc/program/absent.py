"""Operations that people look for under the names of other libraries: what is there for them, and what is not."""

from __future__ import annotations

PAGE = "docs/writing_programs.md, 'Names from elsewhere'"

_POSITIONS = "{} is not in this version"
_LAYER_NORM = (
    "layer normalisation with its mean, gain and bias is not in this version; of the latent of a dense layer the mean "
    "over neurons is 0 in the limit, so there it is tpc.rms_norm"
)
_SEVERAL = "vectors are not cut or joined along neurons: {} is not in this version"

# name in lower case without underscores -> (what is and is not there, what to write)
_KNOWN: dict[str, tuple[str, str]] = {
    "layernorm": (_LAYER_NORM, "tpc.rms_norm(h) before the nonlinearity"),
    "batchnorm": (
        "batch normalisation makes a prediction depend on the other samples of its batch and is not there",
        "tpc.rms_norm(h), which normalises every sample by itself",
    ),
    "groupnorm": (_SEVERAL.format("group normalisation"), "tpc.rms_norm(h)"),
    "rmsnorm": ("RMS normalisation is tpc.rms_norm, without a gain", "tpc.rms_norm(h)"),
    "normalize": ("normalisation is tpc.rms_norm", "tpc.rms_norm(h)"),
    "dropout": ("dropout, a random mask of neurons, is not in this version", "leave it out"),
    "convolution": ("a convolution is tpc.conv, in one dimension or two", "tpc.conv(x, name='conv1', size=3)"),
    "convlocal": (_POSITIONS.format("a convolution without shared weights"), "tpc.conv, which shares them"),
    "conv3d": (_POSITIONS.format("a convolution of Image data in three dimensions"), "tpc.conv in one or two"),
    "maxpool": ("the maximum of several neurons' inputs has no closed form and is not there", "tpc.avg_pool(h, 2)"),
    "avgpool2d": ("an average over windows is tpc.avg_pool", "tpc.avg_pool(h, 2)"),
    "attention": (
        _POSITIONS.format("attention, with one head or several,"),
        "tpc.moment(q, k) is the score (1/n) Σ qk of two vectors",
    ),
    "embedding": (_POSITIONS.format("a table of token embeddings"), "one-hot features into tpc.dense"),
    "embed": (_POSITIONS.format("a table of token embeddings"), "one-hot features into tpc.dense"),
    "rnn": (_POSITIONS.format("a recurrence over time"), "the same dense layer used twice shares its weights"),
    "flatten": (
        "positions are kept as axes, and read by tpc.readout with an entry for each",
        "tpc.readout(h, classes, over=('height', 'width'))",
    ),
    "reshape": (_SEVERAL.format("reshaping"), "several dense layers, one for each part"),
    "concat": (_SEVERAL.format("concatenation"), "a sum of dense layers, or of readouts, of the parts"),
    "split": (_SEVERAL.format("splitting, into heads or others,"), "several dense layers, one for each part"),
    "transpose": ("a vector has no transpose", "tpc.moment(q, k) is (1/n) Σ qk, as μP scales it"),
    "matmul": ("a matrix product is tpc.dense; of two vectors, tpc.moment", "tpc.dense(x, name=…) or tpc.moment(q, k)"),
    "dot": ("the product of two vectors is tpc.moment, with 1/n", "tpc.moment(q, k)"),
    "linear": ("a linear layer is tpc.dense, its bias tpc.bias", "tpc.dense(x, name='hidden1') + tpc.bias('hidden1')"),
    "sum": ("a sum along a finite axis is tpc.total; over neurons, with 1/n, tpc.moment", "tpc.total(s, axis)"),
    "norm": ("a norm is the root of a moment", "tpc.moment(h, h) ** 0.5"),
    "sqrt": ("a root of a scalar is a power", "s ** 0.5; of a vector, tpc.nonlin('sqrt(1 + x**2)') or alike"),
    "crossentropy": ("a program returns logits; the loss is an option of training", "loss='cross_entropy' or --loss"),
    "mseloss": ("a program returns logits; the loss is an option of training", "loss='mse' or --loss mse"),
    "parameter": ("weights are made by layers", "tpc.dense, tpc.readout or tpc.bias"),
    "swish": ("swish is tpc.silu", "tpc.silu(h)"),
    "prelu": ("a leaky ReLU has a fixed slope", "tpc.leaky_relu(h, slope)"),
    "mish": ("mish is written as an expression", "tpc.nonlin('mish')(h)"),
    "selu": ("selu is written as an expression", "tpc.nonlin('selu')(h)"),
    "glu": ("a gated unit is a product of two vectors", "tpc.sigmoid(g) * u"),
}  # fmt: skip
_SAME = {
    "conv1d": "convolution", "conv2d": "convolution",
    "multiheadattention": "attention", "selfattention": "attention", "scaleddotproductattention": "attention",
    "heads": "attention", "batchnorm1d": "batchnorm", "batchnorm2d": "batchnorm", "instancenorm": "groupnorm",
    "lstm": "rnn", "gru": "rnn", "scan": "rnn", "steps": "rnn", "maxpool2d": "maxpool", "avgpool1d": "avgpool2d",
    "pool": "avgpool2d", "adaptiveavgpool2d": "avgpool2d", "view": "reshape", "rearrange": "reshape", "cat": "concat",
    "stack": "concat", "concatenate": "concat", "chunk": "split", "t": "transpose", "mt": "transpose", "permute":
    "transpose", "swapaxes": "transpose", "mm": "matmul", "bmm": "matmul", "einsum": "matmul", "inner": "dot",
    "nllloss": "crossentropy", "crossentropyloss": "crossentropy", "weight": "parameter",
    "matrix": "parameter", "swiglu": "glu", "geglu": "glu", "reglu": "glu",
}  # fmt: skip


def absent(name: str) -> tuple[str, str] | None:
    """(what is and is not there, what to write instead) for a name known from elsewhere."""
    key = name.replace("_", "").lower()
    return _KNOWN.get(_SAME.get(key, key))


def known() -> tuple[str, ...]:
    """All names of the table, in lower case without underscores."""
    return (*_KNOWN, *_SAME)
