"""The same models under the names that several libraries give their tensors.

A scheme is {what a tensor is: (its name, its shape)}; "what it is" is the same word in all schemes of a model, so two
schemes joined on it give the true pairs. Names and shapes are those of the libraries.
"""

from __future__ import annotations

from collections.abc import Iterator

Shape = tuple[int, ...]
Scheme = dict[str, tuple[str, Shape]]

WIDTH, WIDE, WORDS, PLACES, KINDS = 768, 3072, 30522, 512, 2


def truth(into: Scheme, file: Scheme) -> dict[str, str]:
    """The pairs {name in `into`: name in `file`} of what is in both with one shape, dimensions of 1 apart."""

    def plain(shape: Shape) -> Shape:
        return tuple(dim for dim in shape if dim != 1)

    return {
        name: file[what][0]
        for what, (name, shape) in into.items()
        if what in file and plain(file[what][1]) == plain(shape)
    }


def names(scheme: Scheme) -> dict[str, Shape]:
    """{name: shape}, as `suggest_rules` takes it."""
    return dict(sorted(scheme.values()))


def renamed(scheme: Scheme, prefix: str) -> Scheme:
    """The scheme below one more scope."""
    return {what: (prefix + name, shape) for what, (name, shape) in scheme.items()}


def with_slots(scheme: Scheme, *slots: str) -> dict[str, Shape]:
    """The names of a training checkpoint: trainable tensors have slots, and there are counters."""
    found = names(scheme)
    for what, (name, shape) in scheme.items():
        if not what.endswith((":mean", ":var", ":hidden", ":counter")):
            found.update({f"{name}/{slot}": shape for slot in slots})
    return dict(sorted({**found, "global_step": (), "beta1_power": (), "beta2_power": ()}.items()))


# -- BERT ----------------------------------------------------------------------------------------------------------


def _bert_parts(layers: int) -> Iterator[tuple[str, str, Shape]]:
    """(what it is, its kind, its shape) of the encoder's and the heads' tensors."""
    yield "words", "table", (WORDS, WIDTH)
    yield "places", "table", (PLACES, WIDTH)
    yield "kinds", "table", (KINDS, WIDTH)
    yield "start", "norm", (WIDTH,)
    for n in range(layers):
        for part in ("query", "key", "value", "attended"):
            yield f"{n}.{part}", "dense", (WIDTH, WIDTH)
        yield f"{n}.norm1", "norm", (WIDTH,)
        yield f"{n}.wide", "dense", (WIDTH, WIDE)
        yield f"{n}.narrow", "dense", (WIDE, WIDTH)
        yield f"{n}.norm2", "norm", (WIDTH,)
    yield "pooler", "dense", (WIDTH, WIDTH)
    yield "transform", "dense", (WIDTH, WIDTH)
    yield "transform.norm", "norm", (WIDTH,)


def _bert(places: dict[str, str], in_layer: dict[str, str], leaves: tuple[str, str, str, str], layers: int) -> Scheme:
    """Names by the places of the parts; in `in_layer`, {n} is the layer's number.

    Args:
      places: scopes of the parts outside the layers; a table's is its whole name.
      in_layer: scopes of the parts of a layer.
      leaves: names of kernels, biases, normalizations' scales and offsets.
      layers: how many layers.
    """
    kernel, bias, scale, offset = leaves
    scheme: Scheme = {}
    for what, kind, shape in _bert_parts(layers):
        number, _, part = what.partition(".")
        scope = in_layer[part].format(n=int(number), n1=int(number) + 1) if number.isdigit() else places.get(what)
        if scope is None:
            continue
        if kind == "table":
            scheme[what] = scope, shape
        elif kind == "dense":
            scheme[f"{what}:kernel"] = f"{scope}/{kernel}", shape
            scheme[f"{what}:bias"] = f"{scope}/{bias}", shape[-1:]
        else:
            scheme[f"{what}:scale"] = f"{scope}/{scale}", shape
            scheme[f"{what}:offset"] = f"{scope}/{offset}", shape
    return scheme


def _in_layer(layer: str) -> dict[str, str]:
    """The parts as BERT's authors call them, and Hugging Face after them."""
    return {
        "query": f"{layer}/attention/self/query",
        "key": f"{layer}/attention/self/key",
        "value": f"{layer}/attention/self/value",
        "attended": f"{layer}/attention/output/dense",
        "norm1": f"{layer}/attention/output/LayerNorm",
        "wide": f"{layer}/intermediate/dense",
        "narrow": f"{layer}/output/dense",
        "norm2": f"{layer}/output/LayerNorm",
    }


def bert_tf1(layers: int = 12) -> Scheme:
    """Google's published checkpoints."""
    places = {
        "words": "bert/embeddings/word_embeddings",
        "places": "bert/embeddings/position_embeddings",
        "kinds": "bert/embeddings/token_type_embeddings",
        "start": "bert/embeddings/LayerNorm",
        "pooler": "bert/pooler/dense",
        "transform": "cls/predictions/transform/dense",
        "transform.norm": "cls/predictions/transform/LayerNorm",
    }
    scheme = _bert(places, _in_layer("bert/encoder/layer_{n}"), ("kernel", "bias", "gamma", "beta"), layers)
    scheme["out:bias"] = "cls/predictions/output_bias", (WORDS,)
    scheme["next:kernel"] = "cls/seq_relationship/output_weights", (2, WIDTH)
    scheme["next:bias"] = "cls/seq_relationship/output_bias", (2,)
    return scheme


def bert_flax(layers: int = 12, root: str = "bert/", heads: bool = True) -> Scheme:
    """Hugging Face's Flax models."""
    places = {
        "words": f"{root}embeddings/word_embeddings/embedding",
        "places": f"{root}embeddings/position_embeddings/embedding",
        "kinds": f"{root}embeddings/token_type_embeddings/embedding",
        "start": f"{root}embeddings/LayerNorm",
        "pooler": f"{root}pooler/dense",
    }
    if heads:
        places["transform"] = "cls/predictions/transform/dense"
        places["transform.norm"] = "cls/predictions/transform/LayerNorm"
    in_layer = _in_layer(f"{root}encoder/layer/{{n}}")
    scheme = _bert(places, in_layer, ("kernel", "bias", "scale", "bias"), layers)
    if heads:
        scheme["out:bias"] = "cls/predictions/bias", (WORDS,)
        scheme["next:kernel"] = "cls/seq_relationship/kernel", (WIDTH, 2)
        scheme["next:bias"] = "cls/seq_relationship/bias", (2,)
    return scheme


def bert_keras(layers: int = 12) -> Scheme:
    """Hugging Face's Keras models."""
    root = "tf_bert_model/bert"
    places = {
        "words": f"{root}/embeddings/word_embeddings/weight:0",
        "places": f"{root}/embeddings/position_embeddings/embeddings:0",
        "kinds": f"{root}/embeddings/token_type_embeddings/embeddings:0",
        "start": f"{root}/embeddings/LayerNorm",
        "pooler": f"{root}/pooler/dense",
    }
    in_layer = _in_layer(f"{root}/encoder/layer_._{{n}}")
    return _bert(places, in_layer, ("kernel:0", "bias:0", "gamma:0", "beta:0"), layers)


def bert_haiku(layers: int = 12) -> Scheme:
    """Haiku modules that are called as their parts are."""
    places = {
        "words": "bert/~/embeddings/~/word_embeddings/embeddings",
        "places": "bert/~/embeddings/~/position_embeddings/embeddings",
        "kinds": "bert/~/embeddings/~/token_type_embeddings/embeddings",
        "start": "bert/~/embeddings/~/layer_norm",
        "pooler": "bert/~/pooler/~/linear",
    }
    layer = "bert/~/encoder/~/layer_{n}"
    in_layer = {
        "query": f"{layer}/multi_head_attention/query",
        "key": f"{layer}/multi_head_attention/key",
        "value": f"{layer}/multi_head_attention/value",
        "attended": f"{layer}/multi_head_attention/linear",
        "norm1": f"{layer}/layer_norm",
        "wide": f"{layer}/mlp/~/linear_0",
        "narrow": f"{layer}/mlp/~/linear_1",
        "norm2": f"{layer}/layer_norm_1",
    }
    return _bert(places, in_layer, ("w", "b", "scale", "offset"), layers)


def bert_haiku_counted(layers: int = 12) -> Scheme:
    """Haiku modules that are called by their classes, counted through the model; layers count from 1."""
    places = {
        "words": "transformer/embed/embeddings",
        "places": "transformer/embed_1/embeddings",
        "kinds": "transformer/embed_2/embeddings",
        "start": "transformer/embed_ln",
    }
    in_layer = {
        "query": "transformer/h{n1}_attn/query",
        "key": "transformer/h{n1}_attn/key",
        "value": "transformer/h{n1}_attn/value",
        "attended": "transformer/h{n1}_attn/linear",
        "norm1": "transformer/h{n1}_ln_1",
        "wide": "transformer/h{n1}_mlp/~/linear_0",
        "narrow": "transformer/h{n1}_mlp/~/linear_1",
        "norm2": "transformer/h{n1}_ln_2",
    }
    return _bert(places, in_layer, ("w", "b", "scale", "offset"), layers)


def bert_haiku_flat(layers: int = 12) -> Scheme:
    """Haiku modules made one after the other without scopes: each class counts its own through the model."""
    places = {
        "words": "embed/embeddings",
        "places": "embed_1/embeddings",
        "kinds": "embed_2/embeddings",
        "start": "layer_norm",
        "pooler": "linear",
    }
    scheme = _bert(places, dict.fromkeys(_in_layer(""), ""), ("w", "b", "scale", "offset"), 0)
    for n in range(layers):
        tail = f"_{n}" if n else ""
        in_layer = {
            "query": f"mha{tail}/query",
            "key": f"mha{tail}/key",
            "value": f"mha{tail}/value",
            "attended": f"mha{tail}/linear",
            "norm1": f"layer_norm_{2 * n + 1}",
            "wide": f"mlp{tail}/~/linear_0",
            "narrow": f"mlp{tail}/~/linear_1",
            "norm2": f"layer_norm_{2 * n + 2}",
        }
        one = _bert({}, in_layer, ("w", "b", "scale", "offset"), layers)
        scheme.update({what: pair for what, pair in one.items() if what.startswith(f"{n}.")})
    return scheme


# -- ResNet-50 -----------------------------------------------------------------------------------------------------

STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))


def _convolutions() -> Iterator[tuple[tuple[int, int, str] | None, Shape]]:
    """(stage, unit, which convolution of the unit), or None for the first of all, and the kernel's shape."""
    yield None, (7, 7, 3, 64)
    depth = 64
    for stage, (units, width) in enumerate(STAGES):
        for unit in range(units):
            if unit == 0:
                yield (stage, unit, "shortcut"), (1, 1, depth, 4 * width)
            yield (stage, unit, "0"), (1, 1, depth, width)
            yield (stage, unit, "1"), (3, 3, width, width)
            yield (stage, unit, "2"), (1, 1, width, 4 * width)
            depth = 4 * width


def resnet_slim() -> Scheme:
    """The slim model zoo's resnet_v1_50."""
    scheme: Scheme = {}
    for place, shape in _convolutions():
        scope = "resnet_v1_50/conv1"
        if place is not None:
            stage, unit, which = place
            last = "shortcut" if which == "shortcut" else f"conv{int(which) + 1}"
            scope = f"resnet_v1_50/block{stage + 1}/unit_{unit + 1}/bottleneck_v1/{last}"
        scheme[f"{place}:kernel"] = f"{scope}/weights", shape
        for what, leaf in (("scale", "gamma"), ("offset", "beta"), ("mean", "moving_mean"), ("var", "moving_variance")):
            scheme[f"{place}:{what}"] = f"{scope}/BatchNorm/{leaf}", shape[-1:]
    scheme["logits:kernel"] = "resnet_v1_50/logits/weights", (1, 1, 2048, 1000)
    scheme["logits:bias"] = "resnet_v1_50/logits/biases", (1000,)
    return scheme


def resnet_haiku(averages: bool = False) -> Scheme:
    """Haiku's ResNet50; with `averages`, all tensors of its moving averages."""
    scheme: Scheme = {}
    for place, shape in _convolutions():
        conv, norm = "res_net50/~/initial_conv", "res_net50/~/initial_batchnorm"
        if place is not None:
            stage, unit, which = place
            block = f"res_net50/~/block_group_{stage}/~/block_{unit}/~"
            conv, norm = f"{block}/conv_{which}", f"{block}/batchnorm_{which}"
            if which == "shortcut":
                conv, norm = f"{block}/shortcut_conv", f"{block}/shortcut_batchnorm"
        scheme[f"{place}:kernel"] = f"{conv}/w", shape
        channels = (1, 1, 1, *shape[-1:])
        scheme[f"{place}:scale"] = f"{norm}/scale", channels
        scheme[f"{place}:offset"] = f"{norm}/offset", channels
        for what in ("mean", "var"):
            scheme[f"{place}:{what}"] = f"{norm}/~/{what}_ema/average", channels
            if averages:
                scheme[f"{place}:{what}:hidden"] = f"{norm}/~/{what}_ema/hidden", channels
                scheme[f"{place}:{what}:counter"] = f"{norm}/~/{what}_ema/counter", ()
    scheme["logits:kernel"] = "res_net50/~/logits/w", (2048, 1000)
    scheme["logits:bias"] = "res_net50/~/logits/b", (1000,)
    return scheme


def resnet_flax() -> Scheme:
    """Hugging Face's FlaxResNetForImageClassification."""
    scheme: Scheme = {}
    for place, shape in _convolutions():
        scope = "resnet/embedder/embedder"
        if place is not None:
            stage, unit, which = place
            last = "shortcut" if which == "shortcut" else f"layer/{which}"
            scope = f"resnet/encoder/stages/{stage}/layers/{unit}/{last}"
        scheme[f"{place}:kernel"] = f"params/{scope}/convolution/kernel", shape
        scheme[f"{place}:scale"] = f"params/{scope}/normalization/scale", shape[-1:]
        scheme[f"{place}:offset"] = f"params/{scope}/normalization/bias", shape[-1:]
        scheme[f"{place}:mean"] = f"batch_stats/{scope}/normalization/mean", shape[-1:]
        scheme[f"{place}:var"] = f"batch_stats/{scope}/normalization/var", shape[-1:]
    scheme["logits:kernel"] = "params/classifier/1/kernel", (2048, 1000)
    scheme["logits:bias"] = "params/classifier/1/bias", (1000,)
    return scheme


def resnet_keras() -> Scheme:
    """Keras's ResNet50 (whose convolutions have biases of their own)."""
    scheme: Scheme = {}
    for place, shape in _convolutions():
        conv, norm = "conv1_conv", "conv1_bn"
        if place is not None:
            stage, unit, which = place
            number = 0 if which == "shortcut" else int(which) + 1
            block = f"conv{stage + 2}_block{unit + 1}_{number}"
            conv, norm = f"{block}_conv", f"{block}_bn"
        scheme[f"{place}:kernel"] = f"{conv}/kernel:0", shape
        scheme[f"{place}:bias"] = f"{conv}/bias:0", shape[-1:]
        for what, leaf in (("scale", "gamma"), ("offset", "beta"), ("mean", "moving_mean"), ("var", "moving_variance")):
            scheme[f"{place}:{what}"] = f"{norm}/{leaf}:0", shape[-1:]
    scheme["logits:kernel"] = "predictions/kernel:0", (2048, 1000)
    scheme["logits:bias"] = "predictions/bias:0", (1000,)
    return scheme


def resnet_flax_examples() -> Scheme:
    """The ResNet of Flax's examples: its blocks count through all stages."""
    scheme: Scheme = {}
    first = [0]
    for units, _ in STAGES:
        first.append(first[-1] + units)
    for place, shape in _convolutions():
        conv, norm = "conv_init", "bn_init"
        if place is not None:
            stage, unit, which = place
            block = f"BottleneckResNetBlock_{first[stage] + unit}"
            conv, norm = f"{block}/Conv_{which}", f"{block}/BatchNorm_{which}"
            if which == "shortcut":
                conv, norm = f"{block}/conv_proj", f"{block}/norm_proj"
        scheme[f"{place}:kernel"] = f"params/{conv}/kernel", shape
        scheme[f"{place}:scale"] = f"params/{norm}/scale", shape[-1:]
        scheme[f"{place}:offset"] = f"params/{norm}/bias", shape[-1:]
        scheme[f"{place}:mean"] = f"batch_stats/{norm}/mean", shape[-1:]
        scheme[f"{place}:var"] = f"batch_stats/{norm}/var", shape[-1:]
    scheme["logits:kernel"] = "params/Dense_0/kernel", (2048, 1000)
    scheme["logits:bias"] = "params/Dense_0/bias", (1000,)
    return scheme


def resnet_torchvision() -> Scheme:
    """torchvision's resnet50, its kernels turned to TensorFlow's layout by whoever converted it."""
    scheme: Scheme = {}
    for place, shape in _convolutions():
        conv, norm = "conv1", "bn1"
        if place is not None:
            stage, unit, which = place
            block = f"layer{stage + 1}.{unit}"
            if which == "shortcut":
                conv, norm = f"{block}.downsample.0", f"{block}.downsample.1"
            else:
                conv, norm = f"{block}.conv{int(which) + 1}", f"{block}.bn{int(which) + 1}"
        scheme[f"{place}:kernel"] = f"{conv}.weight", shape
        scheme[f"{place}:scale"] = f"{norm}.weight", shape[-1:]
        scheme[f"{place}:offset"] = f"{norm}.bias", shape[-1:]
        scheme[f"{place}:mean"] = f"{norm}.running_mean", shape[-1:]
        scheme[f"{place}:var"] = f"{norm}.running_var", shape[-1:]
        scheme[f"{place}:counter"] = f"{norm}.num_batches_tracked", ()
    scheme["logits:kernel"] = "fc.weight", (2048, 1000)
    scheme["logits:bias"] = "fc.bias", (1000,)
    return scheme


BERT = {
    "tf1": bert_tf1,
    "flax": bert_flax,
    "flax_without_root": lambda layers=12: bert_flax(layers, root="", heads=False),
    "flax_params": lambda layers=12: renamed(bert_flax(layers), "params/"),
    "keras": bert_keras,
    "haiku": bert_haiku,
    "haiku_counted": bert_haiku_counted,
    "haiku_flat": bert_haiku_flat,
}
RESNET = {
    "slim": resnet_slim,
    "haiku": resnet_haiku,
    "flax": resnet_flax,
    "flax_examples": resnet_flax_examples,
    "keras": resnet_keras,
    "torchvision": resnet_torchvision,
}
