"""Programs of scopes and variables, as hypothesis strategies.

A program is a list of statements, a statement a dict with the key "do". Arguments that are absent are not passed.
What an earlier statement made is named by a number: the runner takes it modulo how many there are, and skips the
statement where there is none. Few names, so that they collide.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

Statement = dict[str, Any]
Program = list[Statement]

NAMES = st.sampled_from(["a", "b", "w", "A", "a/w", "w_1", "a_1", "v"])
ODD_NAMES = st.sampled_from(["9x", ".x", "_x", "-x", "a b", "a//b", "/a", "x:0", "é", "x>y", "part_0", "a/", ""])
SCOPE_NAMES = st.sampled_from(range(8)).flatmap(lambda n: NAMES if n else ODD_NAMES)
# Names of variables that end in "/" or are empty are refused on purpose: TensorFlow gives them other names.
VARIABLE_NAMES = st.sampled_from(range(8)).flatmap(
    lambda n: NAMES if n else ODD_NAMES.filter(lambda name: name and name[-1] != "/")
)

SHAPES: list[Any] = [[], [2], [3], [2, 3], (2,), 3, None, [None, 2], (), [0], [-1], "array"]
DTYPES = ["float32", "float32", "int32", "bool", "float16", "uint8"]
COLLECTIONS: list[Any] = [
    [],
    ["variables"],
    ["trainable_variables"],
    ["variables", "trainable_variables"],
    ["local_variables"],
    ["mine", "variables"],
    ["mine", "mine"],
    ("mine",),
    {"mine"},
    "mine",
]
KEYS = st.sampled_from(
    ["variables", "trainable_variables", "local_variables", "mine", "regularization_losses", "nothing"]
)
PATTERNS = st.sampled_from(["", "a", "a/", "w", ".*w", "[ab]/", "b|a/w", "A", "a_1", "a/w:0", "n"])
GETTERS = ["suffix", "suffix", "untrain", "zeros", "extra", "plain", "narrow", "raises", "not callable"]
# Of composed getters TensorFlow wraps each, so that what is wrong with one shows in another way, or not at all.
SCOPE_GETTERS = [kind for kind in GETTERS if kind not in ("narrow", "not callable")]
CREATORS = ["untrain", "sevens", "watch"]
REUSE = st.sampled_from([True, True, False, None, "auto", "auto", "yes"])


def numbers(least: int, most: int) -> st.SearchStrategy[list[float]]:
    """Lists of numbers that every dtype and every order of additions keeps exact."""
    return st.lists(st.integers(-8, 8).map(lambda n: n / 2), min_size=least, max_size=most)


def initializers(with_values: bool = True, callables: bool = True) -> st.SearchStrategy[dict[str, Any]]:
    """Every way to say how a variable begins."""
    kinds = [
        st.sampled_from(["zeros", "ones"]).map(lambda name: {"kind": name}),
        st.sampled_from(["zeros", "ones"]).map(lambda name: {"kind": "class", "name": name}),
        st.fixed_dictionaries({"kind": st.just("constant"), "value": st.integers(0, 3)}),
        st.fixed_dictionaries({"kind": st.just("constant"), "value": numbers(1, 7)}),
        st.just({"kind": "shaped function"}),
    ]
    values = [
        st.fixed_dictionaries(
            {"kind": st.just("tensor"), "value": numbers(1, 3), "dtype": st.sampled_from(["float32", "int32"])}
        ),
        st.sampled_from([1, 2.5, True, [1, 2], [0.5, 1.5, 2.5], [[1.0, 2.0]]]).map(
            lambda value: {"kind": "python", "value": value}
        ),
        st.fixed_dictionaries({"kind": st.just("function"), "value": numbers(2, 2)}),
        st.fixed_dictionaries({"kind": st.just("initialized"), "of": st.integers(0, 9), "add": st.integers(0, 2)}),
    ]
    return st.one_of([*(kinds if callables else []), *(values if with_values else [])])


REGULARIZERS = st.sampled_from(["l1", "l2", "none", "no_regularizer", "scaled"])


def optional(**fields: st.SearchStrategy[Any]) -> dict[str, st.SearchStrategy[Any]]:
    return fields


def options(required: dict[str, Any], each: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Statement]:
    """Statements with all of `required` and some of `each`: seldom many of them."""

    @st.composite
    def draw_statement(draw: st.DrawFn) -> Statement:
        statement = {key: draw(value) for key, value in required.items()}
        for key in draw(st.lists(st.sampled_from(sorted(each)), max_size=3, unique=True)):
            statement[key] = draw(each[key])
        return statement

    return draw_statement()


VARIABLE_OPTIONS = optional(
    dtype=st.sampled_from([*DTYPES, "np", "tf"]),
    initializer=initializers(),
    regularizer=REGULARIZERS,
    trainable=st.sampled_from([True, False, None]),
    collections=st.sampled_from(COLLECTIONS),
    constraint=st.sampled_from(["positive", "unit"]),
    getter=st.sampled_from(GETTERS),
    caching=st.just("/cpu:0"),
    synchronization=st.sampled_from(["AUTO", "NONE", "ON_WRITE", "ON_READ"]),
    aggregation=st.sampled_from(["NONE", "SUM", "MEAN"]),
    validate_shape=st.just(True),
)


def get_statements(partitioners: bool = False) -> st.SearchStrategy[Statement]:
    """get_variable and get_local_variable."""
    each = VARIABLE_OPTIONS | ({"partitioner": PARTITIONERS} if partitioners else {})
    required = {"name": VARIABLE_NAMES, "shape": st.sampled_from([[], [2], [2], [2, 3]])}
    usual = options({"do": st.just("get")} | required, each)
    # TensorFlow adds a list to `collections` there, so that another kind of sequence fails in Python itself.
    lists = {"collections": st.sampled_from([keys for keys in COLLECTIONS if isinstance(keys, list)])}
    local = options({"do": st.just("get_local")} | required, each | lists)
    free = options({"do": st.just("get"), "name": VARIABLE_NAMES}, each | {"shape": st.sampled_from(SHAPES)})
    return weighted((4, usual), (1, local), (2, free))


PARTITIONERS = st.one_of(
    st.fixed_dictionaries({"kind": st.just("fixed"), "shards": st.integers(1, 4), "axis": st.integers(0, 1)}),
    st.fixed_dictionaries({"kind": st.just("bytes"), "most": st.sampled_from([4, 8, 13, 64])}),
    st.fixed_dictionaries({"kind": st.just("least"), "most": st.integers(1, 4), "slice": st.sampled_from([4, 9, 99])}),
)

VARIABLES = options(
    {"do": st.just("variable"), "initializer": initializers(callables=False)},
    optional(
        name=VARIABLE_NAMES,
        dtype=st.sampled_from(DTYPES),
        trainable=st.sampled_from([True, False, None]),
        collections=st.sampled_from(COLLECTIONS),
        constraint=st.sampled_from(["positive"]),
        caching=st.just("/cpu:0"),
    ),
)

EFFECTS = st.one_of(
    st.fixed_dictionaries(
        {
            "do": st.sampled_from(["assign", "assign_add", "assign_sub"]),
            "of": st.integers(0, 9),
            "value": st.one_of(
                st.just("same"),
                st.just("same"),
                st.sampled_from([1, 1.5, [1.0, 2.0], [[1.0]], "text"]),
            ),
        }
    ),
    st.fixed_dictionaries({"do": st.just("count_up_to"), "of": st.integers(0, 9), "limit": st.integers(0, 3)}),
    st.fixed_dictionaries({"do": st.just("read"), "of": st.integers(0, 9)}),
)

SETTERS = st.one_of(
    st.fixed_dictionaries(
        {"do": st.just("set"), "what": st.just("initializer"), "to": st.one_of(st.none(), initializers(False))}
    ),
    st.fixed_dictionaries(
        {"do": st.just("set"), "what": st.just("regularizer"), "to": st.one_of(st.none(), REGULARIZERS)}
    ),
    st.fixed_dictionaries({"do": st.just("set"), "what": st.just("dtype"), "to": st.sampled_from(DTYPES)}),
    st.fixed_dictionaries(
        {"do": st.just("set"), "what": st.just("custom_getter"), "to": st.sampled_from(SCOPE_GETTERS)}
    ),
    st.fixed_dictionaries({"do": st.just("set"), "what": st.just("caching_device"), "to": st.just("/cpu:0")}),
    st.fixed_dictionaries({"do": st.just("set"), "what": st.just("use_resource"), "to": st.just(False)}),
).flatmap(lambda statement: st.one_of(st.just(statement), st.integers(0, 5).map(lambda n: statement | {"scope": n})))

QUESTIONS = st.one_of(
    options({"do": st.just("collection"), "key": KEYS}, optional(pattern=PATTERNS)),
    st.fixed_dictionaries({"do": st.just("collection"), "key": KEYS, "scope": st.integers(0, 5)}),
    st.fixed_dictionaries(
        {
            "do": st.just("lists"),
            "which": st.sampled_from(["global_variables", "trainable_variables", "local_variables"]),
            "pattern": st.one_of(st.none(), PATTERNS),
        }
    ),
    st.just({"do": "state"}),
    st.just({"do": "losses"}),
)


@st.composite
def weighted(draw: st.DrawFn, *choices: tuple[int, st.SearchStrategy[Any]]) -> Any:
    """One of several strategies, as often as its weight says (`one_of` would mix in all of their own choices)."""
    position = draw(st.sampled_from([i for i, (weight, _) in enumerate(choices) for _ in range(weight)]))
    return draw(choices[position][1])


def small_statements(partitioners: bool) -> st.SearchStrategy[Statement]:
    """Statements without a body."""
    return weighted(
        (10, get_statements(partitioners)),
        (3, VARIABLES),
        (5, EFFECTS),
        (2, SETTERS),
        (3, QUESTIONS),
        (1, options({"do": st.just("reuse_variables")}, optional(scope=st.integers(0, 5)))),
        (1, st.fixed_dictionaries({"do": st.just("collect"), "key": KEYS, "of": st.integers(0, 9)})),
        (1, st.sampled_from([{"do": "capture"}, {"do": "leave"}])),
    )


SCOPE_OPTIONS = optional(
    reuse=REUSE,
    initializer=initializers(),
    regularizer=REGULARIZERS,
    dtype=st.sampled_from(DTYPES),
    constraint=st.sampled_from(["positive", "unit"]),
    getter=st.sampled_from(SCOPE_GETTERS),
    caching=st.just("/cpu:0"),
    auxiliary=st.sampled_from([True, False, False, 1]),
    default_name=NAMES,
)


@st.composite
def _blocks(draw: st.DrawFn, bodies: st.SearchStrategy[Program], partitioners: bool, templates: bool) -> Statement:
    """A statement with a body."""
    kinds = ["scope", "scope", "scope", "default", "captured", "captured", "root", "nameless", "again"]
    kinds += ["names", "names", "original", "try", "creator"]
    kinds += ["template", "template", "call"] if templates else []
    kind = draw(st.sampled_from(kinds))
    body = draw(bodies)
    if kind in ("try", "original", "again"):
        return {"do": kind, "of": draw(st.integers(0, 5)), "body": body}
    if kind == "names":
        return {"do": "names", "name": draw(st.one_of(SCOPE_NAMES, st.none(), st.just("a/w/"))), "body": body}
    if kind == "creator":
        return {"do": "creator", "kind": draw(st.sampled_from(CREATORS)), "body": body}
    if kind == "template":
        each = optional(
            unique=st.one_of(st.none(), NAMES),
            now=st.booleans(),
            getter=st.sampled_from(["suffix", "untrain"]),
            calls=st.integers(2, 3),
        )
        return draw(options({"do": st.just("template"), "name": NAMES, "body": st.just(body)}, each))
    if kind == "call":
        return {"do": "call", "of": draw(st.integers(0, 3))}
    each = SCOPE_OPTIONS | ({"partitioner": PARTITIONERS} if partitioners else {})
    required: dict[str, Any] = {"do": st.just("scope"), "target": st.just(kind), "body": st.just(body)}
    if kind == "scope":
        required["name"] = SCOPE_NAMES
    if kind == "default":
        required["default_name"] = st.sampled_from(["a", "b", "w", "a/w", "A", "a_1", "v", "b", "a b", "_x"])
    if kind == "captured":
        required["of"] = st.integers(0, 5)
    if kind == "nameless":
        required["name"] = st.sampled_from([None, 7])
    return draw(options(required, each))


def programs(partitioners: bool = True, templates: bool = True) -> st.SearchStrategy[Program]:
    """Programs of a few statements, nested a few levels deep."""
    small = small_statements(partitioners)
    bodies = st.lists(small, min_size=1, max_size=4)
    for _ in range(2):
        bodies = st.lists(weighted((2, small), (1, _blocks(bodies, partitioners, templates))), min_size=1, max_size=4)
    return st.lists(weighted((1, small), (1, _blocks(bodies, partitioners, templates))), min_size=2, max_size=7)
