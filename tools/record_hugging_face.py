"""Small models of Hugging Face's `transformers`, with what they answer: the files of tests/golden/hugging_face.

    python tools/record_hugging_face.py             # record: needs torch and transformers
    python tools/record_hugging_face.py --verify    # the way back: needs jaxvars as well

`--verify` gives each model new weights in jaxvars, writes them with `jv.interop.hugging_face.save`, lets
`transformers` load the folder, and compares what both compute. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
import transformers
from transformers import (
    BertConfig,
    BertForPreTraining,
    GPT2Config,
    GPT2LMHeadModel,
    ResNetConfig,
    ResNetForImageClassification,
)

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden" / "hugging_face"
TOLERANCE = 1e-5

Arrays = dict[str, np.ndarray]


def bert() -> Any:
    return BertForPreTraining(
        BertConfig(
            vocab_size=64,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=16,
            hidden_act="gelu_new",  # the tanh approximation, as in Google's program
        )
    )


def gpt2() -> Any:
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=16, n_embd=32, n_layer=2, n_head=4))


def resnet() -> Any:
    config = ResNetConfig(
        num_channels=3, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type="basic", num_labels=5
    )
    return ResNetForImageClassification(config)


MODELS: dict[str, Callable[[], Any]] = {"bert": bert, "gpt2": gpt2, "resnet": resnet}


def inputs(name: str) -> Arrays:
    random = np.random.default_rng(3)
    if name == "resnet":
        return {"pixel_values": random.normal(size=(2, 3, 32, 32)).astype(np.float32)}
    ids = random.integers(0, 64, size=(2, 12))
    if name == "gpt2":
        return {"input_ids": ids}
    lengths = np.array([12, 9])
    mask = (np.arange(12) < lengths[:, None]).astype(np.int64)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": (np.arange(12) > 5).astype(np.int64) * mask}


def outputs(model: Any, given: Arrays) -> Arrays:
    model.eval()
    with torch.no_grad():
        answer = model(**{name: torch.from_numpy(value) for name, value in given.items()})
    shown = ("logits", "prediction_logits", "seq_relationship_logits")
    return {name: answer[name].numpy() for name in shown if name in answer}


def randomize(model: Any) -> None:
    """Give all parameters and averages values that differ: biases of 0 and scales of 1 would hide mistakes."""
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0)
            elif tensor.is_floating_point():
                tensor.add_(torch.randn_like(tensor) * 0.1)


def record() -> None:
    for name, make in MODELS.items():
        torch.manual_seed(0)
        model = make()
        randomize(model)
        folder = GOLDEN / name
        model.save_pretrained(folder, max_shard_size="60KB" if name == "gpt2" else "5GB")
        (folder / "generation_config.json").unlink(missing_ok=True)
        given = inputs(name)
        np.savez(
            folder / "expected.npz",
            **{f"in/{key}": value for key, value in given.items()},
            **{f"out/{key}": value for key, value in outputs(model, given).items()},
        )
        files = ", ".join(sorted(path.name for path in folder.iterdir()))
        print(f"{name}: {sum(p.stat().st_size for p in folder.iterdir()):,} bytes: {files}")


def verify() -> bool:
    """Whether `transformers` computes with each folder that jaxvars wrote what jaxvars does."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    from hugging_face_models import MODELS as OURS

    from jaxvars.interop import hugging_face

    good = True
    for name, ours in OURS.items():
        given = inputs(name)
        variables = new_weights(ours, given)
        mine = ours.outputs(variables, given)
        config = hugging_face.read_config(GOLDEN / name)
        for arguments in ({"config": config}, {"like": GOLDEN / name, "max_shard_bytes": 50_000}):
            with tempfile.TemporaryDirectory() as folder:
                hugging_face.save(variables, folder, ours.names, **arguments)
                loaded, report = type(MODELS[name]()).from_pretrained(folder, output_loading_info=True)
            theirs = outputs(loaded, given)
            difference = max(float(np.max(np.abs(mine[key] - theirs[key]))) for key in theirs)
            complaints = {key: value for key, value in report.items() if value}
            good &= difference < TOLERANCE and not complaints and mine.keys() == theirs.keys()
            print(f"{name}, {next(iter(arguments))}: difference {difference:.1e}, {complaints or 'no complaints'}")
    return good


def new_weights(ours: Any, given: Arrays) -> Any:
    """Variables of other values than those that were recorded."""
    random = np.random.default_rng(7)
    specs = ours.specs(given)
    values = {key: random.normal(0.0, 0.2, hole.shape).astype(np.float32) for key, hole in specs.items()}
    return specs.replace({key: abs(v) + 0.5 if key.endswith("variance") else v for key, v in values.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verify", action="store_true")
    transformers.logging.set_verbosity_error()
    if not parser.parse_args().verify:
        record()
    elif not verify():
        sys.exit("transformers does not compute what jaxvars does")


if __name__ == "__main__":
    main()
