"""Damaged checkpoints of every format, at random (see `fuzz`); and that the fuzzer finds what it should."""

import os
import time
import warnings

import fuzz
import numpy as np
import pytest
from fuzz_seeds import FORMATS, seeds

from jaxvars.checkpoint.formats import bundle_index, files, npz, tensor_bundle, tf_types

# Orbax takes too long for the quick tests: it is among the slow ones.
QUICK = {format: max(4, round(4 * fuzz.SHARES[format])) for format in FORMATS if format != "orbax"}


@pytest.mark.parametrize("format", QUICK)
def test_a_few_mutations(tmp_path, format):
    judge = fuzz.Judge(format, seeds(format), 0, str(tmp_path))
    with judge.listening():
        found = [finding for _, finding in map(judge.run, range(QUICK[format])) if finding]
    assert not found, found[0].text


@pytest.mark.slow
def test_many_mutations():
    tallies = fuzz.run(10_000, seed=7)
    print(fuzz.table(tallies))
    assert tallies.keys() == FORMATS.keys()
    for format, tally in tallies.items():
        assert not tally.findings, tally.findings[0]
        assert tally.outcomes[fuzz.REFUSED] and tally.outcomes[fuzz.EQUAL], format


# The fuzzer finds what it should: readers that somebody broke after it learned the whole checkpoints.


def _raise(*_):
    raise ZeroDivisionError


def _warn(*_):
    warnings.warn("odd", stacklevel=1)


def _unchecked(self, entry, raw, what):
    return raw.view(tf_types.numpy_dtype(entry.dtype)).reshape(entry.shape)


def _hoard(*_):
    # Where the system cannot limit what a process takes, more than any machine has.
    np.empty(1 << 32 if os.path.exists("/proc/self/statm") else 1 << 60, np.uint8)


_kept = []


def _leak(file):
    _kept.append(file)


class _Noisy:
    def __del__(self):
        raise ZeroDivisionError


def _whisper(*_):
    _Noisy()


@pytest.mark.parametrize(
    ("format", "owner", "name", "replacement", "kind"),
    [
        ("tf", tensor_bundle.TensorBundle, "_values", _unchecked, "Wrong"),
        ("tf", bundle_index, "_header", _raise, "ZeroDivisionError"),
        ("npz", npz, "header_size", _warn, "UserWarning"),
        ("npz", npz, "parse_npy_header", _whisper, "Unraisable"),
        ("npz", npz, "header_size", _hoard, "MemoryError"),
        ("safetensors", files.RangedFile, "close", _leak, "OpenFile"),
    ],
)
def test_broken_readers_are_found(tmp_path, monkeypatch, format, owner, name, replacement, kind):
    judge = fuzz.Judge(format, seeds(format), 0, str(tmp_path))
    monkeypatch.setattr(owner, name, replacement)
    monkeypatch.setattr(fuzz.gc, "collect", lambda: 0)  # takes long, and finds nothing more here
    with judge.listening(), fuzz.little_memory():
        kinds = {finding.kind for _, finding in map(judge.run, range(15)) if finding}
    assert kinds == {kind}
    _kept.clear()


def crash(format, checkpoints, seed, numbers, folder, answers):
    """A child that dies at every third mutation, and waits for ever at the last."""
    answers.send(None)
    for number in numbers:
        if number % 3 == 2:
            os.abort()
        if number == 7:
            time.sleep(1000)
        answers.send((fuzz.REFUSED, 0.0, None))


@pytest.mark.slow
def test_crashes_and_hangs_are_found(monkeypatch):
    monkeypatch.setattr(fuzz, "LONGEST_SECONDS", 1)
    tally = fuzz.supervise("tf", [], 0, range(8), crash)
    assert [(finding.number, finding.kind) for finding in tally.findings] == [(2, "Crash"), (5, "Crash"), (7, "Hang")]
    assert tally.outcomes == {fuzz.REFUSED: 5, fuzz.FOUND: 3}
