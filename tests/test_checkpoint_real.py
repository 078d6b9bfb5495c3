"""Every tensor of the shared checkpoints equals what TensorFlow read from it (shape, dtype, checksum)."""

import hashlib
import json
import struct

import numpy as np
import pytest
from shared import shared_path

from jaxvars import checkpoint
from jaxvars.errors import InvalidArgumentError, JaxvarsError, NotFoundError


def records(kind):
    try:
        folder = shared_path("checkpoints") / kind
    except pytest.skip.Exception:
        return []
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    expected = json.loads((folder / "EXPECTED.json").read_text())["checkpoints"]
    return [
        pytest.param(folder / entry["id"] / entry["prefix"], expected[entry["id"]], id=entry["id"])
        for entry in manifest
        if entry["format"] in ("V1", "V2")
    ]


def digest(array):
    if array.dtype == object:
        raw = b"".join(struct.pack("<Q", len(text)) + text for text in array.ravel())
    else:
        raw = array.tobytes()
    return hashlib.sha256(raw).hexdigest()


@pytest.mark.parametrize(("path", "expected"), [*records("real"), *records("synth")])
def test_all_tensors_agree_with_tensorflow(path, expected):
    unreadable = expected.get("tensor_errors") or {}
    with checkpoint.open(path) as reader:
        assert set(reader) == set(expected["tensors"]) | set(unreadable)
        for name, (shape, dtype, sha256, *_) in expected["tensors"].items():
            info = reader.tensors[name]
            assert (list(info.shape), info.type_name) == (shape, dtype)
            if name in unreadable:
                assert info.problem
                with pytest.raises((NotFoundError, InvalidArgumentError), match=r"data file|variant"):
                    reader.get_tensor(name)
            else:
                assert not info.problem and digest(np.asarray(reader[name])) == sha256


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("bad_pytorch_zip/model.ckpt", "PyTorch"),
        ("bad_serving_checkpoint_only", "names '/tmp/bad_half_plus_two/00000123/export'.*does not exist"),
        ("bad_serving_checkpoint_only/checkpoint", "names '/tmp/bad_half_plus_two"),
        ("og_td3_comp", r"ckpt-1'.*Still there: .*ckpt-10"),
        ("v2_siamese/model.ckpt.data-00000-of-00001", "Open the checkpoint: '.*model.ckpt'"),
        ("v2_siamese/model.ckp", "Did you mean '.*model.ckpt'"),
    ],
)
def test_what_is_no_checkpoint_says_what_it_is(name, text):
    with pytest.raises(JaxvarsError, match=text):
        checkpoint.open(shared_path("checkpoints") / "real" / name)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("real/v2_siamese", 21),  # a `checkpoint` file with a relative path
        ("synth/s_tf1_saver_v2", 11),  # one with a dead absolute path
        ("synth/s_tf1_saver_v1", 11),
        ("real/v1_savedmodel_sharded", 2),  # one with a pattern of shards
        ("synth/s_v1_sharded/m.ckpt", 3),
        ("real/og_gp_phi", 14),  # a folder with one index
        ("real/v2_t2t_transformer/model.ckpt-1.index", 250),
    ],
)
def test_folders_and_files_lead_to_their_checkpoint(name, count):
    with checkpoint.open(shared_path("checkpoints") / name) as reader:
        assert len(reader) == count
