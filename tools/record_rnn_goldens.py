"""Record which variables TensorFlow 1 makes for the programs of parity/rnn_programs.py, for tests/golden/rnn.json.

Run it in an environment with tensorflow and tf-keras (the `parity` extra), from the root:

    PYTHONPATH=. python tools/record_rnn_goldens.py
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

from parity.live import fresh_graph, tf
from parity.rnn_programs import PROGRAMS
from parity.test_rnn import THEIRS, X
from parity.zoo.twin import table

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden" / "rnn.json"


def main() -> None:
    warnings.simplefilter("ignore")
    tables: dict[str, list[str]] = {}
    for name, program in PROGRAMS.items():
        with fresh_graph():
            program(THEIRS, tf.constant(X))
            tables[name] = table()
    GOLDEN.write_text(json.dumps(tables, indent=1) + "\n")
    sys.stdout.write(f"{len(tables)} programs, {sum(map(len, tables.values()))} variables\n")


if __name__ == "__main__":
    main()
