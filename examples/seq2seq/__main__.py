"""Learn to write numbers backwards: ``python -m examples.seq2seq``."""

from __future__ import annotations

import argparse
import time

import jax
import numpy as np

import jaxvars as jv
from examples.seq2seq.model import END, Config, evaluation, training

FIRST = 2
"""The token of the digit 0; those before it end and begin a sequence."""


def draw(count: int, longest: int, random: np.random.RandomState) -> tuple[np.ndarray, ...]:
    """Random numbers and the same backwards, as tokens: source, its lengths, target with its end, its lengths."""
    lengths = random.randint(1, longest + 1, size=count)
    source = np.full([count, longest], END, np.int32)
    target = np.full([count, longest + 1], END, np.int32)
    for row, length in enumerate(lengths):
        digits = random.randint(10, size=length) + FIRST
        source[row, :length], target[row, :length] = digits, digits[::-1]
    return source, lengths.astype(np.int32), target, (lengths + 1).astype(np.int32)


def text(tokens: np.ndarray) -> str:
    """The digits before the first end."""
    ends = np.flatnonzero(tokens == END)
    return "".join(str(token - FIRST) for token in tokens[: ends[0] if len(ends) else None])


def picture(alignments: np.ndarray, read: str, written: str) -> str:
    """Where the decoder looked at each token it wrote, one line each."""
    lines = [f"      {' '.join(read)}"]
    for token, weights in zip(written, alignments, strict=False):
        lines.append(f"    {token} {' '.join(' .:-=+*#%@'[min(int(w * 10), 9)] for w in weights[: len(read)])}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Train on random numbers, test on others, and show some answers."""
    parser = argparse.ArgumentParser(prog="python -m examples.seq2seq", description=main.__doc__)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2, help="an even number with --encoder bi")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--longest", type=int, default=10, help="digits of the longest number")
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--encoder", choices=["uni", "bi"], default="bi")
    parser.add_argument(
        "--attention", choices=["luong", "scaled_luong", "bahdanau", "normed_bahdanau"], default="normed_bahdanau"
    )
    options = parser.parse_args(arguments)
    config = Config(
        num_units=options.units,
        num_layers=options.layers,
        encoder_type=options.encoder,
        attention=options.attention,
        dropout=options.dropout,
    )
    random = np.random.RandomState(0)
    test = draw(500, options.longest, random)
    variables = training.init(0, config, *test)
    print(variables.summary())
    optimizer = jv.train.AdamOptimizer(options.rate)
    variables = optimizer.init(variables)

    @jax.jit
    def step(variables: jv.Variables, key: jax.Array, *batch: jax.Array) -> tuple[jax.Array, jv.Variables]:
        return optimizer.minimize(lambda v: training.apply(v, config, *batch, training=True, rng=key), variables)

    @jax.jit
    def answers(variables: jv.Variables, *batch: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        return evaluation(variables, config, *batch)

    print("\n  step    loss   test loss   backwards")
    start = time.perf_counter()
    for number in range(1, options.steps + 1):
        value, variables = step(variables, jax.random.key(number), *draw(options.batch, options.longest, random))
        if number == 1 or number % max(options.steps // 10, 1) == 0:
            test_loss, tokens, alignments = answers(variables, *test)
            right = np.mean(np.all(np.asarray(tokens) == test[2], axis=1))
            print(f"{number:6d}  {value:6.3f}  {test_loss:10.3f}  {right:10.1%}")
    print(
        f"\n{options.steps} steps in {time.perf_counter() - start:.1f} s. Where it looks (read across, written down):\n"
    )
    for row in np.argsort(-test[1])[:2]:
        print(picture(np.asarray(alignments[row]), text(test[0][row]), text(np.asarray(tokens[row]))), end="\n\n")


if __name__ == "__main__":
    main()
