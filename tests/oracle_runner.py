"""Runs the oracle's scope programs on an implementation of TF1's API, and compares with TensorFlow's answers.

A program is a tree of statements (see the README beside the programs). An implementation is a `Backend`: the
API functions, and what the runner must know about its variables. Two exist: a store without arrays, for the
naming rules alone (`fake_store.FakeBackend`), and jaxvars itself (`jaxvars_backend`).
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

COLLECTION_KEYS = ("variables", "trainable_variables", "local_variables", "my", "other", "losses_like")

# TensorFlow's error texts, as phrases, with the category that the expected answers use.
CATEGORIES = [
    (r"already exists", "already_exists"),
    (r"does not exist", "does_not_exist"),
    (r"(Trying to share|Trying to reuse).*specified shape", "shape_mismatch"),
    (r"(Trying to share|Trying to reuse).*specified dtype", "dtype_mismatch"),
    (r"specified partitions", "partition_mismatch"),
    (r"No partitioner was provided, but a partitioned", "partitioned_exists"),
    (r"partitioner was provided, but an unpartitioned", "unpartitioned_exists"),
    (r"Partitioner returned a different", "partition_mismatch"),
    (r"Shape of a new (partitioned )?variable", "no_shape"),
    (r"Initializer type .* and explicit dtype", "init_dtype_mismatch"),
    (r"initializer is a constant, do not specify shape", "const_init_with_shape"),
    (r"did not get an initializer, so its", "no_shape"),
    (r"The initializer passed is not valid", "no_shape"),
    (r"An initializer for variable .* is required", "no_default_initializer"),
    (r"If default_name is None", "scope_name_required"),
    (r"reuse parameter must be", "bad_reuse_value"),
    (r"reuse=True cannot be used without", "reuse_without_name"),
    (r"name_or_scope must be a string", "bad_scope_type"),
    (r"not a valid (root )?scope name", "bad_name"),
    (r"collections argument", "bad_collections"),
    (r"Too many elements", "too_many_elements"),
    (r"unexpected keyword argument|takes 0 positional", "initializer_signature"),
    (r"Improper nesting", "improper_nesting"),
    (r"(Dimension|[Ss]hapes must be equal).*[Aa]ssign", "assign_shape"),
    (r"[Aa]ssign.*(Dimension|[Ss]hapes must be equal)", "assign_shape"),
    (r"not defined for dtype bool", "assign_dtype"),
    (r"[Ee]xpected \w+, (but )?got", "init_value_dtype"),
]
# Errors that TensorFlow raises when it has taken the op name of the new variable already.
BURNING = {"too_many_elements", "initializer_signature", "init_value_dtype"}
# Errors of making a variable. In a later frame that variable is missing among those given.
MAKING = BURNING | {"no_shape", "no_default_initializer", "bad_collections"}
# The expected category -> what else it may be: one phrase of TensorFlow's serves both cases.
SAME = {"assign_dtype": {"init_value_dtype"}}
# Without tf1_op_names a key that a jv.Variable has is refused first, whatever else is wrong.
TAKEN = "a jv.Variable of that name was made"


class Backend(Protocol):
    """An implementation of the TF1 API, as the runner needs it."""

    def run(self, body: Callable[[Any], None]) -> None:
        """Call `body` in a fresh graph, as often as need be: the last time counts.

        It takes the API: variable_scope, name_scope, get_variable, ..., as attributes.
        """
        ...

    def initializer(self, kind: dict[str, Any], handle: Callable[[str], Any]) -> Any:
        """The initializer that the program describes."""
        ...

    def partitioner(self, shards: int) -> Any:
        """fixed_size_partitioner."""
        ...

    #: Whether variables, and the collections they are added to, are given from the start, as to later frames.
    remembers: bool
    #: The programs that were not compared to their end, see `parts_ways`.
    cut_short: list[int]

    def burn(self, op_name: str) -> None:
        """Take an op name, which TensorFlow did before the initializer of a variable failed; nothing if that is so."""
        ...

    def describe(self, variable: Any) -> dict[str, Any]:
        """Fields n, k, s, d, t and, if partitioned, parts; fields that are left out are not compared."""
        ...

    def shards(self, variable: Any) -> list[Any]:
        """The variable itself, or the shards of a partitioned one."""
        ...

    def read(self, variable: Any) -> Any:
        """The value as nested lists; None when this implementation has no values."""
        ...


class Escape(Exception):
    """Leaves all with-blocks up to the next `try` of the program."""


def category(error: BaseException) -> str:
    """The category of an error text."""
    text = str(error).replace("\n", " ")
    for pattern, name in CATEGORIES:
        if re.search(pattern, text):
            return name
    return "other: " + text[:140]


class Run:
    """One run of a program; fills `records`, `variables`, `collections` and `end`."""

    def __init__(self, backend: Backend, program: dict[str, Any]) -> None:
        self.backend = backend
        self.statements = program["body"]
        self.burnt: dict[int, str] = {}  # by statement
        backend.run(self.once)

    def once(self, api: Any) -> None:
        """Run the program from the beginning."""
        self.api = api
        self.records: list[dict[str, Any]] = []
        self.handles: dict[str, Any] = {}
        self.variables: list[dict[str, Any]] = []
        self._made: list[tuple[int, Any]] = []  # (statement, variable or partitioned variable), in order
        self.body(self.statements)
        self.end = self.scope_fields(api.get_variable_scope())
        collections = {key: api.get_collection(key) for key in COLLECTION_KEYS}
        self.collections = {key: [item.name for item in items] for key, items in collections.items() if items}
        for _, variable in self._made:
            self.variables += [self.final(shard) for shard in self.backend.shards(variable)]

    def final(self, variable: Any) -> dict[str, Any]:
        fields = self.backend.describe(variable)
        return {key: fields[key] for key in ("n", "s", "d") if key in fields} | {"v": self.backend.read(variable)}

    def body(self, statements: list[dict[str, Any]]) -> None:
        for statement in statements:
            getattr(self, "do_" + statement["op"])(statement)

    def attempt(self, statement: dict[str, Any], action: Callable[[], dict[str, Any]]) -> bool:
        """Record what `action` returns, or the error it raises; whether it went well."""
        try:
            fields = action()
        except Exception as error:
            fields = {"err": error, "cat": category(error)}
            self.burn(statement, fields)
        self.records.append({"i": statement["i"], **fields})
        return "err" not in fields

    def burn(self, statement: dict[str, Any], record: dict[str, Any]) -> None:
        """Go on with the op names that TensorFlow goes on with."""
        name = re.search(r'[Vv]ariable "([^"]+)"', str(record["err"]))
        if record["cat"] in BURNING and statement["op"].startswith("get") and name is not None:
            partitioned = "part" in statement or self.api.get_variable_scope().partitioner is not None
            sliced = partitioned and statement.get("shape") != []
            self.burnt[statement["i"]] = name[1] + "/part_0" if sliced else name[1]
        elif not is_missing(record):
            return
        if statement["i"] in self.burnt:  # perhaps by an earlier run
            self.backend.burn(self.burnt[statement["i"]])

    def bound(self, statement: dict[str, Any], *names: str | None) -> bool:
        if all(name is None or name in self.handles for name in names):
            return True
        self.records.append({"i": statement["i"], "skip": 1})
        return False

    def scope_fields(self, scope: Any) -> dict[str, Any]:
        return {
            "vs": scope.name,
            "ru": self.reuse_field(scope),
            "on": scope.original_name_scope,
            "ns": self.api.get_current_name_scope(),
        }

    def reuse_field(self, scope: Any) -> bool | str:
        return "auto" if scope.reuse is self.api.AUTO_REUSE else scope.reuse

    def initializer(self, kind: dict[str, Any]) -> Any:
        return self.backend.initializer(kind, self.handles.__getitem__)

    def note(self, statement: dict[str, Any], variable: Any) -> dict[str, Any]:
        fields = self.backend.describe(variable)
        first = self.backend.shards(variable)[0]
        fields["c"] = sorted(
            key for key in COLLECTION_KEYS if any(item is first for item in self.api.get_collection(key))
        )
        for made_by, known in self._made:
            if known is variable:
                fields["same"] = made_by
                break
        else:
            self._made.append((statement["i"], variable))
        self.handles[statement.get("as", "")] = variable
        return fields

    # Statements

    def do_get(self, statement: dict[str, Any]) -> None:
        self.get(statement, self.api.get_variable)

    def do_get_local(self, statement: dict[str, Any]) -> None:
        self.get(statement, self.api.get_local_variable)

    def get(self, statement: dict[str, Any], function: Callable[..., Any]) -> None:
        if not self.bound(statement, statement.get("init", {}).get("var")):
            return

        def action() -> dict[str, Any]:
            keywords = {key: statement[key] for key in ("shape", "dtype", "trainable") if key in statement}
            keywords |= self.common(statement)
            return self.note(statement, function(statement["name"], **keywords))

        self.attempt(statement, action)

    def do_var(self, statement: dict[str, Any]) -> None:
        if not self.bound(statement, statement["init"].get("var")):
            return

        def action() -> dict[str, Any]:
            keywords = {key: statement[key] for key in ("trainable", "name") if key in statement}
            keywords |= self.common(statement)
            return self.note(statement, self.api.Variable(keywords.pop("initializer"), **keywords))

        self.attempt(statement, action)

    def common(self, statement: dict[str, Any]) -> dict[str, Any]:
        """The keywords collections, initializer and partitioner of a statement."""
        keywords: dict[str, Any] = {}
        if "colls" in statement:
            keys = statement["colls"]
            keywords["collections"] = list(keys) if isinstance(keys, list) else keys
        if "init" in statement:
            keywords["initializer"] = self.initializer(statement["init"])
        if "part" in statement:
            keywords["partitioner"] = self.backend.partitioner(statement["part"])
        return keywords

    def do_vscope(self, statement: dict[str, Any]) -> None:
        if not self.bound(statement, statement.get("from")):
            return
        opened: list[Any] = []

        def action() -> dict[str, Any]:
            keywords = self.common(statement)
            if "reuse" in statement:
                reuse = statement["reuse"]
                keywords["reuse"] = self.api.AUTO_REUSE if reuse == "auto" else reuse
            for theirs, ours in (
                ("dtype", "dtype"),
                ("aux", "auxiliary_name_scope"),
                ("default", "default_name"),
            ):
                if theirs in statement:
                    keywords[ours] = statement[theirs]
            if "cg" in statement:
                keywords["custom_getter"] = suffix_getter(statement["cg"])
            target = self.handles[statement["from"]] if "from" in statement else statement["name"]
            manager = self.api.variable_scope(target, **keywords)
            scope = manager.__enter__()
            opened.append(manager)
            if "as" in statement:
                self.handles[statement["as"]] = scope
            return self.scope_fields(scope)

        if self.attempt(statement, action):
            self.inside(opened[0], statement["body"])

    def do_nscope(self, statement: dict[str, Any]) -> None:
        if not self.bound(statement, statement.get("orig")):
            return
        opened: list[Any] = []

        def action() -> dict[str, Any]:
            original = statement.get("orig")
            name = self.handles[original].original_name_scope if original else statement["name"]
            manager = self.api.name_scope(name)
            yielded = manager.__enter__()
            opened.append(manager)
            return {"ns": yielded}

        if self.attempt(statement, action):
            self.inside(opened[0], statement["body"])

    def inside(self, entered: Any, body: list[dict[str, Any]]) -> None:
        """Run `body` in a with-block that was entered already."""
        try:
            self.body(body)
        except BaseException as error:
            entered.__exit__(type(error), error, error.__traceback__)
            raise
        entered.__exit__(None, None, None)

    def do_try(self, statement: dict[str, Any]) -> None:
        try:
            self.body(statement["body"])
            caught = False
        except Escape:
            caught = True
        self.records.append({"i": statement["i"], "caught": caught})

    def do_escape(self, statement: dict[str, Any]) -> None:
        self.records.append({"i": statement["i"], "esc": 1})
        raise Escape

    def do_reuse_variables(self, statement: dict[str, Any]) -> None:
        name = statement.get("scope")
        if not self.bound(statement, name):
            return

        def action() -> dict[str, Any]:
            scope = self.handles[name] if name else self.api.get_variable_scope()
            scope.reuse_variables()
            return {"ru": self.reuse_field(scope)}

        self.attempt(statement, action)

    def do_set_initializer(self, statement: dict[str, Any]) -> None:
        def action() -> dict[str, Any]:
            self.api.get_variable_scope().set_initializer(self.initializer(statement["init"]))
            return {}

        self.attempt(statement, action)

    def do_info(self, statement: dict[str, Any]) -> None:
        self.attempt(statement, lambda: self.scope_fields(self.api.get_variable_scope()))

    def do_coll(self, statement: dict[str, Any]) -> None:
        name = statement.get("vs")
        if not self.bound(statement, name):
            return

        def action() -> dict[str, Any]:
            if "vs" in statement:
                scope = self.handles[name] if name else self.api.get_variable_scope()
                items = scope.get_collection(statement["key"])
            else:
                items = self.api.get_collection(statement["key"], statement.get("scope"))
            return {"names": [item.name for item in items]}

        self.attempt(statement, action)

    def do_addcoll(self, statement: dict[str, Any]) -> None:
        if not self.bound(statement, statement["var"]):
            return

        def action() -> dict[str, Any]:
            self.api.add_to_collection(statement["key"], self.handles[statement["var"]])
            return {}

        self.attempt(statement, action)

    def do_assign(self, statement: dict[str, Any]) -> None:
        if not self.bound(statement, statement["var"]):
            return

        def action() -> dict[str, Any]:
            getattr(self.handles[statement["var"]], statement["op"])(statement["v"])
            return {}

        self.attempt(statement, action)

    do_assign_add = do_assign_sub = do_assign

    def do_read(self, statement: dict[str, Any]) -> None:
        if self.bound(statement, statement["var"]):
            self.attempt(statement, lambda: {"v": self.backend.read(self.handles[statement["var"]])})


def suffix_getter(suffix: str) -> Callable[..., Any]:
    """A custom getter that appends `suffix` to the name."""

    def custom_getter(getter: Callable[..., Any], name: str, *args: Any, **kwargs: Any) -> Any:
        return getter(name + suffix, *args, **kwargs)

    return custom_getter


# Comparison


def agrees(field: str, expected: Any, actual: Any) -> bool:
    """Whether a field agrees. None: a random or unknown value, or a tf.Variable, which has no key."""
    unknown = (field in ("v", "k") and expected is None) or (field == "v" and actual is None)
    return unknown or expected == actual


def is_missing(record: dict[str, Any]) -> bool:
    """Whether a variable is not among those given, as it could not be made; `apply` makes its own error of that."""
    return type(record.get("err")).__name__ == "Mismatch" and str(record["err"]) == "missing"


def same_error(expected: dict[str, Any], actual: dict[str, Any]) -> bool:
    """Whether the error is of TensorFlow's class and category."""
    if is_missing(actual):
        return expected["cat"] in MAKING
    if "err" not in actual or not isinstance(actual["err"], {"ValueError": ValueError}.get(expected["err"], TypeError)):
        return False
    cat = actual["cat"]
    return cat == expected["cat"] or cat in SAME.get(expected["cat"], ()) or TAKEN in str(actual["err"])


def record_differences(expected: dict[str, Any], actual: dict[str, Any], fields: set[str]) -> Iterator[str]:
    """How two records of one statement differ, in the given fields."""
    if "err" in expected or "err" in actual:
        if "err" not in expected or not same_error(expected, actual):
            yield f"expected {expected.get('err')} {expected.get('cat')}, got {actual}"
        return
    if "n" in expected and expected.get("same") != actual.get("same"):
        yield f"same: expected {expected.get('same')}, got {actual.get('same')}"
    for key in (expected.keys() & actual.keys() & fields) - {"same"}:
        if not agrees(key, expected[key], actual[key]):
            yield f"{key}: expected {expected[key]!r}, got {actual[key]!r}"


ALL_FIELDS = {
    "n",
    "k",
    "s",
    "d",
    "t",
    "c",
    "parts",
    "vs",
    "ru",
    "on",
    "ns",
    "names",
    "v",
    "caught",
    "esc",
    "skip",
}


def differences(
    entry: dict[str, Any], backend: Backend, fields: set[str] = ALL_FIELDS, by_key: bool = False
) -> list[str]:
    """Run a program and list where it differs from TensorFlow; an empty list means that it agrees.

    Args:
      entry: the program and TensorFlow's answers.
      backend: what to run it on.
      fields: the fields of the answers to compare.
      by_key: whether variables have the names of the store's keys, not those of TensorFlow's ops. A key that a
        jv.Variable has is then refused: the answers are compared up to there.
    """
    run = Run(backend, entry["p"])
    expected = with_keys_as_names(entry["e"]) if by_key else entry["e"]
    found: list[str] = []
    if backend.remembers:
        expected = forget_members(entry["p"]["body"], expected, run)
    ours, theirs = run.records, expected["ops"]
    end = next((i for i, pair in enumerate(zip(ours, theirs, strict=False)) if parts_ways(*pair, backend)), None)
    if end is not None:
        backend.cut_short.append(entry["id"])
        ours, theirs = ours[:end], theirs[:end]
    if [record["i"] for record in ours] != [record["i"] for record in theirs]:
        found.append(f"executed {[r['i'] for r in ours]}, expected {[r['i'] for r in theirs]}")
    for their, our in zip(theirs, ours, strict=False):
        found += [f"#{their['i']} {text}" for text in record_differences(their, our, fields)]
    return found if end is not None else found + end_differences(run, expected, fields)


def parts_ways(ours: dict[str, Any], theirs: dict[str, Any], backend: Backend) -> bool:
    """Whether jaxvars means to do something else from here on; what follows depends on it.

    * A variable that TensorFlow gives another name than its key is refused where the key is that of a jv.Variable.
    * A variable that could not be made or found here, but is made later in the program, is given to a later frame.
    """
    if theirs.get("renamed") and "err" in ours:
        return TAKEN in str(ours["err"])
    not_made = theirs.get("cat") == "does_not_exist" or theirs.get("cat") in MAKING
    return backend.remembers and not_made and not same_error(theirs, ours)


def end_differences(run: Run, expected: dict[str, Any], fields: set[str]) -> list[str]:
    """How the scope, the collections and the values after a program differ."""
    found = [f"end {text}" for text in record_differences(expected["end"], run.end, fields)]
    if "names" in fields and run.collections != expected["colls"]:
        found.append(f"collections: expected {expected['colls']}, got {run.collections}")
    if len(run.variables) != len(expected["vars"]):
        found.append(f"{len(run.variables)} variables, expected {len(expected['vars'])}")
    for theirs, ours in zip(expected["vars"], run.variables, strict=False):
        found += [f"variable {theirs['n']} {text}" for text in record_differences(theirs, ours, fields)]
        found += glorot_differences(theirs, ours)
    return found


def forget_members(body: list[dict[str, Any]], expected: dict[str, Any], run: Run) -> dict[str, Any]:
    """Leave out when, and in which order, variables came into the collections to which the program adds some.

    Returns what is left of `expected`; `run` is changed.
    """
    program = list(statements(body))
    added = {statement["key"] for statement in program if statement["op"] == "addcoll"}
    asked = {statement["i"] for statement in program if statement["op"] == "coll" and statement["key"] in added}

    def kept(record: dict[str, Any]) -> dict[str, Any]:
        record = {key: value for key, value in record.items() if key != "names" or record["i"] not in asked}
        return record | ({"c": [key for key in record["c"] if key not in added]} if "c" in record else {})

    def in_any_order(collections: dict[str, list[str]]) -> dict[str, list[str]]:
        return {key: sorted(names) if key in added else names for key, names in collections.items()}

    run.records = [kept(record) for record in run.records]
    run.collections = in_any_order(run.collections)
    return expected | {
        "ops": [kept(record) for record in expected["ops"]],
        "colls": in_any_order(expected["colls"]),
    }


def statements(body: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The statements of a program, and those inside them."""
    for statement in body:
        yield statement
        yield from statements(statement.get("body", []))


def with_keys_as_names(expected: dict[str, Any]) -> dict[str, Any]:
    """TensorFlow's answers with the key in place of each name that was made unique; those records are marked."""
    names: dict[str, str] = {}
    for record in expected["ops"]:
        if record.get("k") is None:
            continue
        for i, (part, _) in enumerate(record.get("parts", ())):
            names[part] = f"{record['k']}/part_{i}:0"
        if "parts" not in record:
            names[record["n"]] = f"{record['k']}:0"

    def renamed(record: dict[str, Any]) -> dict[str, Any]:
        record = dict(record)
        if "n" in record:
            record["renamed"] = names.get(record["n"], record["n"]) != record["n"]
            record["n"] = names.get(record["n"], record["n"])
        if "parts" in record:
            record["parts"] = [[names[part], shape] for part, shape in record["parts"]]
        if "names" in record:
            record["names"] = [names.get(name, name) for name in record["names"]]
        return record

    return expected | {
        "ops": [renamed(record) for record in expected["ops"]],
        "vars": [renamed(record) for record in expected["vars"]],
        "colls": {key: [names.get(name, name) for name in items] for key, items in expected["colls"].items()},
    }


def glorot_differences(expected: dict[str, Any], actual: dict[str, Any]) -> list[str]:
    """Whether a default-initialized variable exceeds the limit of its distribution."""
    limit = expected.get("glorot_limit")
    if limit is None or actual["v"] is None:
        return []
    largest = max((abs(x) for x in flat(actual["v"])), default=0.0)
    return [] if largest <= limit * 1.001 else [f"variable {expected['n']}: {largest} exceeds the limit {limit}"]


def flat(value: Any) -> Iterator[float]:
    """The numbers of nested lists."""
    if isinstance(value, list):
        for item in value:
            yield from flat(item)
    else:
        yield value


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """The programs of the file, with TensorFlow's answers."""
    with gzip.open(path, "rt") as lines:
        for line in lines:
            yield json.loads(line)
