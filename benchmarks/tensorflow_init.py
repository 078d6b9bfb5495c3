"""TF1's get_variable and global_variables_initializer, in a process of their own: imports no jaxvars, no JAX."""

from __future__ import annotations

import json
import sys
import time

import tensorflow

from benchmarks.init_shapes import MODELS

tf = tensorflow.compat.v1
tf.disable_v2_behavior()


def main(model: str) -> None:
    """Print the seconds of the first initialization, the graph included, and of the best of later ones."""
    entries = MODELS[model]()
    with tf.Session() as session:
        session.run(tf.zeros([3]) + 1)  # starts the runtime
    makers = {
        "he": tf.variance_scaling_initializer(2.0),
        "small": tf.truncated_normal_initializer(stddev=0.02),
        "ones": tf.ones_initializer(),
        "zeros": tf.zeros_initializer(),
    }
    with tf.Graph().as_default(), tf.Session() as session:
        start, processor = time.perf_counter(), time.process_time()
        for scope, name, shape, how in entries:
            with tf.variable_scope(scope):
                tf.get_variable(name, shape, initializer=makers[how], use_resource=False)
        initializer = tf.global_variables_initializer()
        session.run(initializer)
        cold, processor = time.perf_counter() - start, time.process_time() - processor
        times: list[float] = []
        for _ in range(3):
            start = time.perf_counter()
            session.run(initializer)
            times.append(time.perf_counter() - start)
    print(json.dumps({"cold": cold, "warm": min(times), "processor": processor}))


if __name__ == "__main__":
    main(sys.argv[1])
