"""The variables of three models: scope, name, shape, and how they are initialized. Imports nothing."""

from __future__ import annotations

# How: "he" (truncated normal of variance 2 / fan in), "small" (truncated normal of stddev 0.02), "ones", "zeros".
Entry = tuple[str, str, tuple[int, ...], str]


def resnet50() -> list[Entry]:
    """ResNet-50 without moving averages: 161 tensors, 25.6 million elements."""
    found: list[Entry] = _convolution("conv1", 7, 3, 64)
    inputs = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        inner = 64 << stage
        for block in range(blocks):
            scope = f"block{stage + 1}/unit_{block + 1}"
            if block == 0:
                found += _convolution(f"{scope}/shortcut", 1, inputs, 4 * inner)
            found += _convolution(f"{scope}/conv1", 1, inputs, inner)
            found += _convolution(f"{scope}/conv2", 3, inner, inner)
            found += _convolution(f"{scope}/conv3", 1, inner, 4 * inner)
            inputs = 4 * inner
    return [*found, *_dense("logits", inputs, 1000, "he")]


def bert_base() -> list[Entry]:
    """BERT-base: 199 tensors, 109.5 million elements."""
    return _transformer(layers=12, width=768, inner=3072, vocabulary=30522, positions=512)


def deep() -> list[Entry]:
    """96 layers of width 64: 1,543 small tensors, 3.3 million elements."""
    return _transformer(layers=96, width=64, inner=128, vocabulary=500, positions=128)


MODELS = {"resnet50": resnet50, "bert_base": bert_base, "deep": deep}


def _convolution(scope: str, size: int, inputs: int, outputs: int) -> list[Entry]:
    return [
        (scope, "weights", (size, size, inputs, outputs), "he"),
        (f"{scope}/BatchNorm", "gamma", (outputs,), "ones"),
        (f"{scope}/BatchNorm", "beta", (outputs,), "zeros"),
    ]


def _dense(scope: str, inputs: int, outputs: int, how: str) -> list[Entry]:
    return [(scope, "kernel", (inputs, outputs), how), (scope, "bias", (outputs,), "zeros")]


def _norm(scope: str, width: int) -> list[Entry]:
    return [(f"{scope}/LayerNorm", "gamma", (width,), "ones"), (f"{scope}/LayerNorm", "beta", (width,), "zeros")]


def _transformer(*, layers: int, width: int, inner: int, vocabulary: int, positions: int) -> list[Entry]:
    sizes = {"word": vocabulary, "position": positions, "token_type": 2}
    found: list[Entry] = [("embeddings", name, (size, width), "small") for name, size in sizes.items()]
    found += _norm("embeddings", width)
    for number in range(layers):
        layer = f"encoder/layer_{number}"
        for part in ("query", "key", "value", "output"):
            found += _dense(f"{layer}/attention/{part}", width, width, "small")
        found += _norm(f"{layer}/attention", width)
        found += _dense(f"{layer}/intermediate", width, inner, "small")
        found += _dense(f"{layer}/output", inner, width, "small")
        found += _norm(f"{layer}/output", width)
    return [*found, *_dense("pooler", width, width, "small")]
