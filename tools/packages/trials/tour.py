"""What needs the extra [tour]: the tour."""

import sys

from jaxvars.__main__ import main

sys.exit(main(["tour", "--steps", "20", "--output", "toured"]))
