"""Train a little with TensorFlow 1, save, train on; for tests/golden/resume and test_saver.py.

Run in an environment with tensorflow (the `parity` extra):

    python tools/record_resume_golden.py
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
v1.disable_eager_execution()
v1.disable_resource_variables()

OUT = Path(__file__).resolve().parent.parent / "tests" / "golden" / "resume"
SAVED_AFTER, TRAINED_ON = 3, 4


def main() -> None:
    x = np.linspace(-1, 1, 12).reshape(6, 2).astype(np.float32)
    y = x.sum(1, keepdims=True)
    with v1.variable_scope("net"):
        w = v1.get_variable("w", initializer=tf.constant([[0.5], [-0.25]]))
        b = v1.get_variable("b", initializer=tf.zeros([1]))
    step = v1.train.create_global_step()
    loss = tf.reduce_mean((tf.matmul(x, w) + b - y) ** 2)
    rate = v1.train.exponential_decay(0.1, step, 2, 0.5)
    train = v1.train.AdamOptimizer(rate).minimize(loss, global_step=step)
    saver = v1.train.Saver()
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        for _ in range(SAVED_AFTER):
            session.run(train)
        saver.save(session, str(OUT / "model.ckpt"), global_step=step, write_meta_graph=False)
        for _ in range(TRAINED_ON):
            session.run(train)
        end = {v.op.name: session.run(v).tolist() for v in v1.global_variables()}
    # Written with the folder of this run in it; the tests need what a copied folder looks like anyway.
    (OUT / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-3"\n')
    (OUT / "end.json").write_text(json.dumps(end) + "\n")
    sys.stdout.write(f"wrote {OUT}: {sorted(p.name for p in OUT.iterdir())}\n")


if __name__ == "__main__":
    main()
