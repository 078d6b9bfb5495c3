"""That all packages of an extra, which is the argument, are there and can be imported."""

import importlib
import sys
from importlib.metadata import packages_distributions, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

extra = sys.argv[1]
needs = [Requirement(line) for line in requires("jaxvars")]
names = {canonicalize_name(need.name) for need in needs if need.marker and need.marker.evaluate({"extra": extra})}
modules = {
    module: {canonicalize_name(owner) for owner in owners} & names
    for module, owners in packages_distributions().items()
    if module.isidentifier() and not module.startswith("_")
}
assert names == set().union(*modules.values()), names.difference(*modules.values())
for module, owners in modules.items():
    if owners:
        importlib.import_module(module)
print(f"{len(names)} packages imported")
