"""TensorFlow's Saver and reader in a process of its own, which works when it is told to: imports no jaxvars, no JAX.

Started by `benchmarks.checkpoint` as `benchmarks.tensorflow_peer` says.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.tensorflow_peer import serve


class Savers:
    """Graphs of many variables, and their savers."""

    def __init__(self) -> None:
        import tensorflow as tf

        tf.compat.v1.disable_v2_behavior()
        self.tf = tf
        self.built: dict[tuple[int, int], tuple[Any, Any]] = {}

    def save_and_restore(self, count: int, size: int, path: str) -> float:
        """Seconds to save `count` float32 variables of `size` elements and to restore them in the session."""
        session, saver = self._graph(count, size)
        start = time.perf_counter()
        saver.save(session, path, write_meta_graph=False, write_state=False)
        saver.restore(session, path)
        return time.perf_counter() - start

    def read_all(self, path: str) -> float:
        """Seconds to open a checkpoint and to get every tensor."""
        start = time.perf_counter()
        reader = self.tf.train.load_checkpoint(path)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
        return time.perf_counter() - start

    def names(self, path: str) -> float:
        """Seconds to list names and shapes."""
        start = time.perf_counter()
        self.tf.train.load_checkpoint(path).get_variable_to_shape_map()
        return time.perf_counter() - start

    def _graph(self, count: int, size: int) -> tuple[Any, Any]:
        if (count, size) not in self.built:
            tf1 = self.tf.compat.v1
            with self.tf.Graph().as_default():
                for number in range(count):
                    tf1.get_variable(f"layer_{number}/kernel", [size], use_resource=False)
                saver, session = tf1.train.Saver(), tf1.Session()
                session.run(tf1.global_variables_initializer())
            self.built[count, size] = session, saver
        return self.built[count, size]


if __name__ == "__main__":
    serve(Savers())
