"""The rules engine: matching, scopes, back-references, all problems at once, hints."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxvars._turned import turned
from jaxvars.errors import InvalidArgumentError, InvalidTypeError, NotFoundError
from jaxvars.rules import Rule, RuleSet, new_name, parse_patterns, parse_rules, parse_values, rename_map
from jaxvars.spec import VariableSpec

NAMES = ["conv1/weights", "conv1/biases", "conv10/weights", "logits/kernel", "step"]


def renamed(rules, names=tuple(NAMES), **more):
    parsed = parse_rules(rules, op="rename", direction="In rename the pattern matches the present name.")
    return {old: new_name(old, match) for old, match in rename_map(names, parsed, **more).items()}


def test_the_first_full_match_wins_and_the_rest_stays():
    found = renamed([(r"conv1/(.*)s", r"tower/\1"), (r"conv.*", "other"), ("step", "global_step")])
    assert found == {
        "conv1/weights": "tower/weight",
        "conv1/biases": "tower/biase",
        "conv10/weights": "other",
        "logits/kernel": "logits/kernel",
        "step": "global_step",
    }


def test_none_leaves_the_name_alone():
    assert renamed([("conv1/weights", None), (r"(conv1)/(.*)", r"\2/\1")])["conv1/weights"] == "conv1/weights"


def test_a_pattern_ending_in_a_slash_is_a_scope():
    found = renamed({"conv1/": "tower/", r"conv(\d\d)/": r"deep/\1/"})
    assert found["conv1/biases"] == "tower/biases" and found["conv10/weights"] == "deep/10/weights"
    assert renamed({"conv1/": "", "conv10/": "x/"})["conv1/biases"] == "biases"
    assert renamed({"/": "all/"})["step"] == "all/step"
    assert renamed({"conv1/": "/", "conv10/": None})["conv1/biases"] == "biases"
    with pytest.raises(InvalidArgumentError, match=r'a scope is replaced by a scope. Write: \("conv1/", "tower/"\)'):
        renamed({"conv1/": "tower"})


def test_one_rule_a_dict_or_a_list_mean_the_same():
    expected = renamed([("step", "s")])
    assert renamed(("step", "s")) == renamed({"step": "s"}) == renamed([Rule("step", "s")]) == expected
    assert renamed(Rule("step", "s")) == renamed({"step:0": "s"}) == expected


def test_names_with_special_characters_match_themselves():
    assert renamed({"a+b": "c"}, ["a+b"]) == {"a+b": "c"}
    spec = VariableSpec("layer.0/w", (), "float32")
    rules = parse_patterns(spec, op="select")
    assert rules.match("layer.0/w") and not rules.match("layerx0/w")


def test_values_are_not_filled_in():
    rules = parse_values({r"(.*)": r"\1"}, op="labels")
    assert rules.match("a").replacement == r"\1"
    assert parse_values([("a", 1), ("b", None)], op="labels").match("b").replacement is None


def test_all_idle_rules_are_listed_with_the_nearest_names():
    with pytest.raises(NotFoundError) as caught:
        renamed([("conv1/weight", "a"), ("step", "s"), ("convl/", "b/")])
    assert str(caught.value) == (
        "rename: 2 of 3 rules match none of the 5 names:\n"
        '  rule 1: ("conv1/weight", "a")   nearest: conv1/weights, conv10/weights\n'
        '  rule 3: ("convl/", "b/")   nearest: conv1/, conv10/'
    )
    assert renamed([("nothing", "a")], allow_unmatched=True)["step"] == "step"


def test_a_rule_whose_names_went_to_earlier_rules_is_no_error():
    assert renamed([("step", "s"), ("s.*", "t")])["step"] == "s"


def test_rules_in_the_other_direction_are_printed_turned():
    with pytest.raises(NotFoundError) as caught:
        renamed([(r"tower/(.*)", r"conv1/\1"), (r"head/(\w+)", r"logits/\1")])
    assert str(caught.value).splitlines()[-2:] == [
        "The rules would match turned round. In rename the pattern matches the present name.",
        r'Write: [("conv1/(.*)", r"tower/\1"), (r"logits/(\w+)", r"head/\1")]',
    ]
    with pytest.raises(NotFoundError) as caught:
        renamed([("tower/", "nowhere/")])
    assert "turned" not in str(caught.value)


def test_only_the_rules_that_match_nothing_are_turned():
    with pytest.raises(NotFoundError) as caught:
        renamed([("tower/", "conv1/"), ("step", "global_step")])
    assert str(caught.value).splitlines()[-2:] == [
        "Those would match turned round. In rename the pattern matches the present name.",
        'Write: [("conv1/", "tower/"), ("step", "global_step")]',
    ]
    with pytest.raises(NotFoundError) as caught:
        renamed([("tower/", "conv1/"), ("nothing.*", "a"), ("step", "global_step")])
    assert "turned" not in str(caught.value)


def test_a_pattern_for_the_names_of_the_other_side_says_so():
    rules = parse_rules(
        [(r"conv(\d)/w", r"tower/\1/w"), ("a", "b")], op="plan", direction="The pattern is for a model."
    )
    with pytest.raises(NotFoundError) as caught:
        rules.resolve(["tower/first/w"], in_file=["conv1/w", "conv2/w", "a"])
    assert str(caught.value) == (
        "plan: 2 of 2 rules match none of the 1 names:\n"
        r'  rule 1: (r"conv(\d)/w", r"tower/\1/w")   matches 2 names in the file'
        '\n  rule 2: ("a", "b")   matches 1 name in the file\n'
        "The pattern is for a model."
    )


def test_a_pattern_for_the_end_of_names_says_so():
    names = ["a/w", "a/w/Momentum", "b/w/Momentum"]
    with pytest.raises(NotFoundError) as caught:
        parse_patterns("Momentum", op="drop").resolve(names)
    assert str(caught.value).endswith('   a pattern matches whole names: write ".*Momentum"')
    with pytest.raises(NotFoundError) as caught:
        parse_patterns("w/Momentu", op="drop").resolve(names)
    assert "whole names" not in str(caught.value)


def test_many_rules_to_write_instead_are_one_a_line():
    names = ["a", "b", "c", "d"]
    with pytest.raises(NotFoundError) as caught:
        parse_rules([(f"old/{name}", name) for name in names], op="rename").resolve(names)
    assert str(caught.value).endswith(
        'turned round.\nWrite: [\n    ("a", "old/a"),\n    ("b", "old/b"),\n    ("c", "old/c"),\n    ("d", "old/d"),\n]'
    )


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ((r"l(\d+)/(.*)", r"\2/m\1"), (r"(.*)/m(\d+)", r"l\2/\1")),
        ((r"a\.b/(w)", r"c/\1"), ("c/(w)", r"a.b/\1")),
        (("a", "b.c"), (r"b\.c", "a")),
        (("a/", "b/"), ("b/", "a/")),
        ((r"a.*", "b"), None),
        ((r"(a)(b)", r"\1"), None),
        ((r"(a(b))", r"\1"), None),
        ((r"(?:a)", "b"), None),
        (("a", None), None),
        (("a", ""), None),
    ],
)
def test_turned(rule, expected):
    assert turned(*rule) == expected


@given(st.text("abc/", min_size=1, max_size=5), st.text("xyz/", min_size=1, max_size=5))
def test_turning_twice_gives_the_rule_back(prefix, other):
    rule = (f"{prefix}(.*)", rf"{other}\1")
    assert turned(*turned(*rule)) == rule


def test_new_names_must_be_distinct_and_valid():
    with pytest.raises(InvalidArgumentError) as caught:
        renamed([("conv.*/weights", "w"), ("conv1/biases", "step")])
    assert str(caught.value) == (
        "rename: several variables get one name:\n"
        '  "w" from conv1/weights, conv10/weights\n'
        '  "step" from conv1/biases, step'
    )
    with pytest.raises(InvalidArgumentError, match='step -> "s/"'):
        renamed({"step": "s/"})


@pytest.mark.parametrize(
    ("rules", "error", "text"),
    [
        ([("(", "a")], InvalidArgumentError, "rule 1 .* not a regular expression"),
        ([("*/kernel", "a")], InvalidArgumentError, r'write "\.\*" for any text'),
        ([("(step)", r"\2")], InvalidArgumentError, "the replacement does not fit the pattern"),
        ([("step",)], InvalidTypeError, "a rule is a tuple"),
        (["step"], InvalidTypeError, "a rule is a tuple"),
        ([(3, "a")], InvalidTypeError, "a pattern is a string, handle or spec"),
        ([("step", 3)], InvalidTypeError, "the replacement is a name or None"),
        ([("step", "s", "transpose")], InvalidTypeError, "the third part is a function"),
    ],
)
def test_bad_rules_say_what_is_wrong(rules, error, text):
    with pytest.raises(error, match=text):
        renamed(rules)


def test_patterns_choose_and_leave_out():
    rules = parse_patterns([("conv1/biases", None), ("conv10/", False), "conv.*"], op="select")
    assert [name for name in NAMES if (m := rules.match(name)) and m.replacement] == ["conv1/weights"]


# -- many rules -----------------------------------------------------------------------------------------------

ODD_NAMES = ["a", "a/b", "a/b/c", "a.b", "a.b/c", "a-b/c", "s1/w", "s10/w", "s1/t/w", "x+y"]
PATTERNS = [
    "a",
    "a/",
    "a/b",
    "a/b/",
    r"a\.b",
    r"a\.b/",
    "a.b",
    "a.b/",
    r"a\-b/c",
    "/",
    ".*",
    "s1/",
    "s.*/",
    "s1/(.*)",
    "x+y",
    "no",
]


@given(st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=8))
def test_patterns_found_by_lookup_match_as_if_tried_in_order(patterns):
    rules = parse_values([(pattern, number) for number, pattern in enumerate(patterns)], op="labels")
    for name in ODD_NAMES:
        tried = [found for number in range(len(rules)) if (found := rules.match_of(number, name))]
        found = rules.match(name)
        assert (found and found.number) == (tried[0].number if tried else None), name
    idle = [n for n in range(len(rules)) if not any(rules.match_of(n, name) for name in ODD_NAMES)]
    assert rules._without_name(list(range(len(rules))), ODD_NAMES) == idle


def test_a_rule_per_name_is_tried_on_that_name_only(monkeypatch):
    names = [f"s{i}/w" for i in range(300)]
    scoped = parse_rules([(f"s{i}/", f"t{i}/") for i in range(300)], op="rename")
    exact = parse_rules({name: f"new/{name}" for name in names}, op="rename")
    tries = []
    trial = RuleSet.match_of
    monkeypatch.setattr(RuleSet, "match_of", lambda self, number, name: tries.append(name) or trial(self, number, name))
    for rules in (scoped, exact):
        tries.clear()
        assert len(rename_map(names, rules)) == 300
        assert len(tries) == 300


def test_nearest_names_are_searched_for_a_few_of_many_rules_only():
    with pytest.raises(NotFoundError) as caught:
        parse_rules({f"layer{i}/weigths": None for i in range(50)}, op="rename").resolve(["layer1/weights"])
    lines = str(caught.value).splitlines()
    assert len([line for line in lines if line.startswith("  rule ")]) == 50
    assert len([line for line in lines if "nearest: layer1/weights" in line]) == 10
