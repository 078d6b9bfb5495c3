"""The program of one process: see README.md."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

import jax

from examples.multihost import STRATEGIES, train


def join(arguments: argparse.Namespace) -> None:
    """Let JAX join the processes, before anything asks for its devices."""
    if arguments.cluster:
        jax.distributed.initialize(heartbeat_timeout_seconds=arguments.heartbeat)
    elif arguments.processes > 1:
        jax.distributed.initialize(
            arguments.coordinator,
            arguments.processes,
            arguments.process,
            heartbeat_timeout_seconds=arguments.heartbeat,
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Train as one of several processes."""
    parser = argparse.ArgumentParser(prog="python -m examples.multihost", description=__doc__)
    parser.add_argument("--processes", type=int, default=1, help="how many there are")
    parser.add_argument("--process", type=int, default=0, help="the number of this one, from 0")
    parser.add_argument("--coordinator", default="localhost:9876", help="host:port of process 0, free there")
    parser.add_argument("--cluster", action="store_true", help="JAX finds the three above: Slurm, Open MPI, TPU, ...")
    parser.add_argument("--heartbeat", type=int, default=10, help="seconds after which a silent process counts as dead")
    parser.add_argument("--strategy", choices=STRATEGIES, default="data_parallel")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--save-every", type=int, default=10)
    parser.add_argument("--folder", default="run", help="for checkpoints: one that all processes see")
    arguments = parser.parse_args(argv)
    join(arguments)

    def show(step: int, value: float, variables: object) -> None:
        if jax.process_index() == 0:
            print(f"step {step:3} loss {value:.6f}", flush=True)

    train(arguments.strategy, arguments.steps, arguments.folder, arguments.save_every, show)


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        # At the usual end JAX waits for the others, which wait for this process: they shall see that it is gone.
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
