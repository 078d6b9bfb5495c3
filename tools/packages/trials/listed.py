"""That everything an extra lists, which is the argument, is there and can be imported."""

import importlib
import sys
from importlib.metadata import packages_distributions, requires

from packaging.requirements import Requirement

extra = sys.argv[1]
needed = [Requirement(line) for line in requires("jaxvars") or []]
names = {need.name for need in needed if need.marker and need.marker.evaluate({"extra": extra})}
modules = [module for module, owners in packages_distributions().items() if names & set(owners)]
assert {owner for module in modules for owner in packages_distributions()[module]} >= names
for module in modules:
    if module.isidentifier() and not module.startswith("_"):
        importlib.import_module(module)
print(f"{len(names)} packages")
