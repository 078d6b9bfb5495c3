"""Rules for a whole model, proposed from names and shapes alone."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naming_tables import (
    BERT,
    RESNET,
    bert_flax,
    bert_tf1,
    names,
    resnet_haiku,
    resnet_slim,
    truth,
    with_slots,
)

import jaxvars as jv
from examples.bert import BertConfig, pretraining
from examples.dcgan import NOISE, gan
from examples.resnet import resnet50
from examples.siamese import contrastive
from jaxvars.checkpoint.suggest import suggest_rules
from jaxvars.checkpoint.suggest.name_parts import COUNTER, kind_of, split
from jaxvars.checkpoint.suggest.rule_list import agrees, find_rules
from jaxvars.rules import Rule, parse_rules, reshape, transpose
from jaxvars.tour.model import OLD_NAMES, model

IMAGES = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)


def shapes(variables):
    return {name: spec.shape for name, spec in variables.variable_specs.items()}


def specs(transformed, *args, **kwargs):
    """The shapes of a model's variables, of models that add biases as users do."""
    with jax.numpy_rank_promotion("allow"):
        return shapes(transformed.specs(*args, **kwargs))


def _check_shapes(found, into, file):
    """Shapes are the same but for dimensions of 1, and where those differ the rule reshapes."""
    rules = parse_rules(list(found.rules), op="test")
    for target, source in found.pairs.items():
        here, there = into[target], file[source]
        assert [dim for dim in here if dim != 1] == [dim for dim in there if dim != 1] or here == there
        if here != there:
            match = rules.match(target)
            assert match is not None and match.rule.transform == reshape()


def suggested(into, file):
    """The suggestion, after checking that its rules do what its pairs say."""
    found = suggest_rules(into, file)
    assert agrees([Rule(*rule) for rule in found.rules], {name: found.pairs.get(name) for name in into})
    assert len(set(found.pairs.values())) == len(found.pairs)
    _check_shapes(found, into, file)
    assert set(found.left) == set(into) - set(found.pairs)
    return found


def doubtful(found, right):
    """Wrong pairs that the suggestion does not call unsure."""
    return {t: s for t, s in found.pairs.items() if right.get(t) != s and t not in found.unsure}


ALL_PAIRS = [
    pytest.param(table, into, file, id=f"{into}-{file}", marks=() if first in (into, file) else pytest.mark.slow)
    for table, first in ((BERT, "tf1"), (RESNET, "slim"))
    for into in table
    for file in table
]


@pytest.mark.parametrize(("table", "into", "file"), ALL_PAIRS)
def test_the_pairs_between_two_libraries_names_are_the_true_ones(table, into, file):
    into, file = table[into](), table[file]()
    assert suggested(names(into), names(file)).pairs == truth(into, file)


@pytest.mark.parametrize("other", ["flax", "flax_without_root", "flax_params", "keras", "haiku"])
@pytest.mark.parametrize("back", [False, True])
def test_few_rules_say_it_all_where_numbers_agree(other, back):
    into, file = (BERT[other](), bert_tf1()) if back else (bert_tf1(), BERT[other]())
    found = suggested(names(into), names(file))
    assert 0 < len(found.rules) <= 20
    assert any(r"(\d+)" in pattern for pattern, _ in found.rules)


def test_equal_names_need_no_rules():
    found = suggested(names(bert_tf1()), with_slots(bert_tf1(), "Adam", "Adam_1"))
    assert found.rules == () and not found.unsure and not found.left
    assert str(found) == "rules = [\n]"


def test_what_only_order_decides_is_unsure():
    into, file = BERT["haiku"](), bert_tf1()
    found = suggested(names(into), names(file))
    assert found.pairs == truth(into, file)
    assert set(found.unsure) == {
        into[f"{n}.norm{k}:{part}"][0] for n in range(12) for k in (1, 2) for part in ("scale", "offset")
    }
    target = into["3.norm1:scale"][0]
    assert found.unsure[target] == (file["3.norm2:scale"][0],)
    assert f"# unsure: {into['0.norm1:scale'][0]} may be {file['0.norm2:scale'][0]} instead" in str(found)


# -- training checkpoints ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "slots", [("Adam", "Adam_1"), ("adam_m", "adam_v"), ("Momentum",), ("ExponentialMovingAverage",)]
)
def test_slots_are_for_slots_and_weights_for_weights(slots):
    into, file = bert_flax(2), bert_tf1(2)
    right = truth(into, file)
    assert suggested(names(into), with_slots(file, *slots)).pairs == right
    with_theirs = right | {f"{t}/{slot}": f"{s}/{slot}" for t, s in right.items() for slot in slots}
    trained = {**with_theirs, "global_step": "global_step", "beta1_power": "beta1_power", "beta2_power": "beta2_power"}
    assert suggested(with_slots(into, *slots), with_slots(file, *slots)).pairs == trained


def test_optimizers_call_the_same_moments_by_other_names():
    into = {"dense/w": (3, 3), "dense/w/Adam": (3, 3), "dense/w/Adam_1": (3, 3)}
    file = {
        "dense/kernel/.ATTRIBUTES/VARIABLE_VALUE": (3, 3),
        "dense/kernel/.OPTIMIZER_SLOT/optimizer/m/.ATTRIBUTES/VARIABLE_VALUE": (3, 3),
        "dense/kernel/.OPTIMIZER_SLOT/optimizer/v/.ATTRIBUTES/VARIABLE_VALUE": (3, 3),
        "save_counter/.ATTRIBUTES/VARIABLE_VALUE": (),
    }
    assert list(suggested(into, file).pairs.values()) == list(file)[:3]
    optax = {"opt_state/0/mu/dense/kernel": (3, 3), "opt_state/0/nu/dense/kernel": (3, 3), "dense/kernel": (3, 3)}
    assert suggested(into, optax).pairs == {
        "dense/w": "dense/kernel",
        "dense/w/Adam": "opt_state/0/mu/dense/kernel",
        "dense/w/Adam_1": "opt_state/0/nu/dense/kernel",
    }


def test_a_counter_is_no_weight_and_only_the_same_counter():
    found = suggested({"temperature": (), "step": ()}, {"global_step": (), "beta1_power": (), "save_counter": ()})
    assert found.pairs == {"step": "global_step"}
    assert found.rules == (("step", "global_step"), ("temperature", None))
    assert kind_of("conv/num_batches_tracked", (), ())[0] == COUNTER


def test_haikus_hidden_averages_are_not_its_averages():
    into, file = resnet_slim(), resnet_haiku(averages=True)
    assert suggested(names(into), names(file)).pairs == truth(into, file)
    assert suggested(names(file), names(into)).pairs == truth(file, into)


# -- the tour and the examples -------------------------------------------------------------------------------------


def tour_names():
    """The tour's variables, and what is in its checkpoint: the old names, Momentum slots, the step."""
    into = specs(model, jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32), 10)
    right = {}
    for name in into:
        pattern, replacement = next(rule for rule in OLD_NAMES if re.fullmatch(rule[0], name))
        right[name] = re.fullmatch(pattern, name).expand(replacement)
    file = {source: into[target] for target, source in right.items()}
    slots = {f"{name}/Momentum": shape for name, shape in file.items() if "moving" not in name}
    return into, file | slots | {"global_step": ()}, right


def test_the_tours_names():
    into, file, right = tour_names()
    found = suggested(into, file)
    assert found.pairs == right
    assert ("reader/norm/", "digits_net/conv2/bn/") in found.rules and len(found.rules) <= len(OLD_NAMES)
    assert found.unsure == {"reader/block/kernel": ()}
    assert "# unsure: only its shape makes reader/block/kernel digits_net/conv2/weights" in str(found)


def test_the_tables_have_the_names_of_the_examples():
    ints = jax.ShapeDtypeStruct((2, 8), jnp.int32)
    batch = dict.fromkeys(("input_ids", "input_mask", "segment_ids", "masked_lm_positions"), ints)
    assert specs(pretraining, BertConfig(), **batch) == names(bert_tf1())
    assert specs(resnet50, IMAGES) == names(resnet_slim())


def in_haiku(name):
    """The name that a Haiku model of the same layers would have, which count from 0."""
    name = name.replace("generator/", "dcgan/~/gen/~/").replace("discriminator/", "dcgan/~/disc/~/")
    name = re.sub(r"conv(\d)/", lambda found: f"siamese/~/conv2_d_{int(found[1]) - 1}/".replace("_0/", "/"), name)
    for old, new in (
        ("batch_normalization", "batch_norm"),
        ("moving_mean", "~/mean_ema/average"),
        ("moving_variance", "~/var_ema/average"),
        ("gamma", "scale"),
        ("beta", "offset"),
        ("dense/", "linear/"),
        ("kernel", "w"),
        ("weights", "w"),
        ("biases", "b"),
        ("bias", "b"),
    ):
        name = name.replace(old, new)
    return name


def test_the_examples_names():
    noise, digits = jax.ShapeDtypeStruct((2, NOISE), jnp.float32), jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
    labels = jax.ShapeDtypeStruct((2,), jnp.float32)
    for into in (specs(gan, noise, digits), specs(contrastive, digits, digits, labels)):
        right = {name: in_haiku(name) for name in into}
        file = {right[name]: shape for name, shape in into.items()}
        found = suggested(into, file | {f"{name}/Momentum": shape for name, shape in file.items()})
        assert found.pairs == right
        assert suggested(file, into).pairs == {new: old for old, new in right.items()}


# -- models that differ --------------------------------------------------------------------------------------------


def test_a_new_head_gets_nothing_or_is_unsure():
    into = {**names(bert_flax(heads=False)), "classifier/kernel": (768, 2), "classifier/bias": (2,)}
    right = truth(bert_flax(heads=False), bert_tf1())
    found = suggested(into, with_slots(bert_tf1(), "adam_m", "adam_v"))
    assert found.pairs == right | {"classifier/bias": "cls/seq_relationship/output_bias"}
    assert found.unsure == {"classifier/bias": ()} and found.left == ("classifier/kernel",)
    assert ("classifier/kernel", None) in found.rules
    assert "# unsure: only its shape makes classifier/bias cls/seq_relationship/output_bias" in str(found)
    other = {**into, "classifier/kernel": (768, 3), "classifier/bias": (3,)}
    found = suggested(other, with_slots(bert_tf1(), "adam_m", "adam_v"))
    assert found.pairs == right and ("classifier/", None) in found.rules and not found.unsure


@pytest.mark.parametrize(("layers", "in_file"), [(6, 12), (12, 6)])
def test_fewer_or_more_layers_than_the_file_has(layers, in_file):
    into, file = bert_flax(layers), bert_tf1(in_file)
    assert suggested(names(into), names(file)).pairs == truth(into, file)


def towers(one, other, kernel, bias, first):
    """Two networks of the same shapes."""
    return {
        (tower, n, leaf): f"{scope}/layer{n + first}/{leaf}"
        for tower, scope in enumerate((one, other))
        for n in range(5)
        for leaf in (kernel, bias)
    }


@pytest.mark.parametrize("scopes", [("gen", "disc"), ("G", "D"), ("left", "right")])
def test_two_towers_of_the_same_shapes_are_not_mixed(scopes):
    into = list(towers("generator", "discriminator", "kernel", "bias", 0).values())
    file = list(towers(*scopes, "w", "b", 1).values())
    found = suggested(
        {name: (3, 3) if "kernel" in name else (3,) for name in into},
        {name: (3, 3) if name.endswith("w") else (3,) for name in file},
    )
    right = dict(zip(into, file, strict=True))
    assert not doubtful(found, right)
    together = {(target.split("/")[0], source.split("/")[0]) for target, source in found.pairs.items()}
    assert len(together) == 2
    if scopes != ("left", "right"):  # nothing says which of these is which
        assert found.pairs == right


def test_names_with_nothing_in_common_are_paired_by_shape():
    found = suggested({"x": (1, 2), "y": (3, 4), "z": (5,)}, {"foo/bar": (1, 2), "qux": (3, 4), "step": ()})
    assert found.pairs == {"x": "foo/bar", "y": "qux"}
    assert found.unsure == {"x": (), "y": ()}


def test_nothing_to_pair():
    assert suggested({}, {}).rules == () == suggested({}, {"a": (1,)}).rules
    for file in ({}, {"a": (2,)}):
        found = suggested({"a": (1,), "b/c": (1,)}, file)
        assert found.left == ("a", "b/c") and found.rules == ((".*", None),)


def test_counts_that_begin_elsewhere_and_counts_that_run_through():
    into = {f"block_{g}/unit_{u}/w": (4,) for g in range(1, 4) for u in range(1, 4)}
    file = {f"stage{g}/cell{u}/kernel": (4,) for g in range(3) for u in range(3)}
    found = suggested(into, file).pairs
    units = [(g, u) for g in range(1, 4) for u in range(1, 4)]
    assert found == {f"block_{g}/unit_{u}/w": f"stage{g - 1}/cell{u - 1}/kernel" for g, u in units}
    through = {f"Cell_{n}/kernel": (4,) for n in range(9)}
    found = suggested(into, through).pairs
    assert found == {f"block_{g}/unit_{u}/w": f"Cell_{3 * g + u - 4}/kernel" for g, u in units}


@pytest.mark.slow
def test_five_thousand_variables():
    into = {f"body/layer_{n}/{part}/{leaf}": shape for n in range(625) for part in ("query", "key", "value", "out")
            for leaf, shape in (("kernel", (8, 8)), ("bias", (8,)))}  # fmt: skip
    right = {
        name: name.replace("body/layer_", "net/~/block").replace("kernel", "w").replace("bias", "b") for name in into
    }
    found = suggested(into, {right[name]: shape for name, shape in into.items()})
    assert found.pairs == right and len(found.rules) == 2


@pytest.mark.slow
def test_thousands_of_names_of_one_shape_that_say_nothing():
    found = suggested({f"a{n * 7919 % 10007}": (7,) for n in range(2000)}, {f"b/{n}/c": (7,) for n in range(2500)})
    assert len(found.pairs) == 2000


# -- evidence ------------------------------------------------------------------------------------------------------


def tensor2tensor():
    """The blocks of a Transformer as tensor2tensor calls them: ``[16]`` is the shape of biases and of norms."""
    norm = {f"layer_prepostprocess/layer_norm/layer_norm_{part}": (16,) for part in ("bias", "scale")}
    attention = {"q/kernel": (16, 16), "k/kernel": (16, 16), "v/kernel": (16, 16), "output_transform/kernel": (16, 16)}
    dense = {"conv1/kernel": (16, 8), "conv1/bias": (8,), "conv2/kernel": (8, 16), "conv2/bias": (16,)}
    found = {}
    for side, kinds in (("encoder", ["self_attention"]), ("decoder", ["self_attention", "encdec_attention"])):
        body = f"transformer/body/{side}"
        found |= {f"{body}/{name}": shape for name, shape in norm.items()}
        for layer in (f"{body}/layer_{n}" for n in range(2)):
            found |= {f"{layer}/ffn/{name}": shape for name, shape in (dense | norm).items()}
            for kind in kinds:
                found |= {f"{layer}/{kind}/{name}": shape for name, shape in norm.items()}
                found |= {f"{layer}/{kind}/multihead_attention/{name}": shape for name, shape in attention.items()}
    return found


def test_a_bias_goes_where_its_kernel_goes():
    into = {"q/kernel": (16, 16), "k/kernel": (16, 16), "v/kernel": (16, 16), "out/kernel": (16, 16),
            "up/kernel": (16, 8), "up/bias": (8,), "down/kernel": (8, 16), "down/bias": (16,)}  # fmt: skip
    into = {f"enc/0/{name}": shape for name, shape in into.items()}
    found = suggested(into, tensor2tensor())
    layer = "transformer/body/encoder/layer_0"
    assert found.pairs["enc/0/down/kernel"] == f"{layer}/ffn/conv2/kernel"
    assert found.pairs["enc/0/down/bias"] == f"{layer}/ffn/conv2/bias"
    assert found.pairs["enc/0/up/bias"] == f"{layer}/ffn/conv1/bias"
    assert found.unsure["enc/0/down/bias"]


def test_a_layer_that_is_torn_apart_is_unsure():
    file = {"tower/down/kernel": (8, 16), "rest/norm/bias": (16,), "rest/norm/scale": (16,), "rest/down/kernel": (4, 4)}
    found = suggested({"down/kernel": (8, 16), "down/bias": (16,)}, file)
    assert found.pairs == {"down/kernel": "tower/down/kernel", "down/bias": "rest/norm/bias"}
    assert found.unsure == {"down/bias": ("rest/norm/scale",), "down/kernel": ()}


@pytest.mark.parametrize(
    "into", [("scale", "add"), ("slope", "offset"), ("gain", "bias"), ("alpha", "beta"), ("aa", "bb"), ("x", "y")]
)
@pytest.mark.parametrize("scope", ["", "net/"])
def test_one_letter_is_no_evidence(into, scope):
    found = suggested({scope + name: () for name in into}, {f"{scope}a": (), f"{scope}b": ()})
    assert found.pairs == {scope + into[0]: f"{scope}a", scope + into[1]: f"{scope}b"}
    assert found.unsure == {scope + into[0]: (f"{scope}b",), scope + into[1]: (f"{scope}a",)}


def test_letters_that_have_a_meaning_are_evidence():
    found = suggested({"kernel": (3,), "bias": (3,)}, {"w": (3,), "b": (3,)})
    assert found.pairs == {"kernel": "w", "bias": "b"} and not found.unsure
    same = {"a": (), "b": ()}
    assert not suggested(same, same).unsure and not suggested({f"x/{name}": () for name in same}, same).unsure
    heads = {f"attention/{name}": (4, 4) for name in ("query", "key", "value")}
    found = suggested(heads, {f"att/{letter}": (4, 4) for letter in "qkv"})
    assert found.pairs == {name: f"att/{name[10]}" for name in heads} and not found.unsure


def siamese():
    """A model and its counterpart, whose layers only their shapes tell apart, and the pairs."""
    words = ["first", "second", "third", "fourth", "fifth"]
    right = {f"embedder/{word}/{new}": f"conv{n}/{old}" for n, word in enumerate(words, 1)
             for new, old in (("kernel", "weights"), ("bias", "biases"))}  # fmt: skip
    into = {name: (n // 2, 3)[: 2 - n % 2] for n, name in enumerate(right, 2)}
    return into, {right[name]: shape for name, shape in into.items()}, right


def test_known_pairs_are_evidence():
    into, file, right = siamese()
    assert suggest_rules(into, file).pairs == right and not suggest_rules(into, file).unsure
    kernels = {target: source for target, source in right.items() if target.endswith("kernel")}
    found = suggest_rules(into, file, kernels)
    assert found.pairs == {target: source for target, source in right.items() if target not in kernels}
    assert not found.unsure and not found.left
    assert not any("kernel" in pattern for pattern, _ in found.rules)


def test_known_pairs_decide_what_nothing_else_does():
    into = {f"{tower}/{leaf}": shape for tower in "xy" for leaf, shape in (("kernel", (3, 3)), ("bias", (3,)))}
    file = {name.replace("x/", "left/").replace("y/", "right/"): shape for name, shape in into.items()}
    assert suggest_rules(into, file).unsure
    found = suggest_rules(into, file, {"x/kernel": "right/kernel", "y/kernel": "left/kernel"})
    assert found.pairs == {"x/bias": "right/bias", "y/bias": "left/bias"} and not found.unsure


# -- what is left --------------------------------------------------------------------------------------------------


def test_it_says_why_something_is_left():
    into = {"emb": (8192, 16), "logits/bias": (10,), "more/bias": (10,), "steps": (), "temperature": ()}
    file = {"logits/biases": (10,), "beta1_power": ()}
    found = suggested(into, file)
    assert found.pairs == {"logits/bias": "logits/biases"} and set(found.left) == set(into) - {"logits/bias"}
    assert found.reasons == {
        "emb": "nothing in the file has its shape, [8192, 16]",
        "more/bias": "other variables get what has its shape, [10]",
        "steps": "nothing in the file counts the same",
        "temperature": "what else has its shape, [], is of another kind (weight, slot, counter)",
    }
    rest = [line for line in str(found).splitlines() if "is left as it is" in line]
    assert len(rest) == 4 and "more under this rule" not in str(found)
    found = suggested({f"emb{n}": (8192, 16) for n in range(6)}, file)
    assert str(found).splitlines()[5] == "    # (and 2 more under this rule)"
    found = suggested({"emb": (8192, 16)}, file)
    assert str(found).splitlines()[1:3] == [
        "    # emb is left as it is: nothing in the file has its shape, [8192, 16]",
        '    (".*", None),' if found.rules[0][0] == ".*" else '    ("emb", None),',
    ]


@pytest.mark.parametrize(
    ("shape", "turned", "axes"), [((2, 24), (24, 2), "1, 0"), ((3, 5, 7, 9), (9, 7, 3, 5), "2, 3, 1, 0")]
)
def test_what_the_file_has_the_other_way_round_is_said_with_the_rule(shape, turned, axes):
    into = {"pair/kernel": shape, "pair/bias": (2,)}
    found = suggested(into, {"net/pair/weight": turned, "net/pair/bias": (2,), "net/other/weight": turned})
    assert found.left == ("pair/kernel",)
    rule = f'("pair/kernel", "net/pair/weight", jv.rules.transpose({axes}))'
    assert found.reasons == {"pair/kernel": f"the file has it the other way round; write {rule}"}
    assert f"# pair/kernel is left as it is: the file has it the other way round; write {rule}" in str(found)
    values = transpose(*map(int, axes.split(", ")))(np.zeros(turned))
    assert values.shape == shape


def test_a_plan_says_what_is_left_and_takes_given_rules_as_evidence(tmp_path):
    into, file, _ = siamese()
    path = jv.checkpoint.save(
        jv.Variables({n: np.zeros(shape, np.float32) for n, shape in file.items()}), tmp_path / "o"
    )
    specs = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in into.items()}
    specs["emb"] = jax.ShapeDtypeStruct((8192, 16), np.float32)
    given = [("embedder/first/kernel", "conv1/weights"), ("embedder/second/kernel", "conv2/weights")]
    plan = jv.checkpoint.plan(path, jv.Variables(specs), rules=given, suggest=True)
    assert plan.ok and plan.left == ("emb",) and len(plan.restored) == len(into)
    assert plan.rules[:2] == tuple(given) and not plan.suggestion.unsure
    line = "emb is left as it is: nothing in the file has its shape, [8192, 16]"
    assert line in str(plan).splitlines() and line in plan._repr_html_()


# -- random names --------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    ["a", "b", "conv", "layer", "w", "Norm", "x.y", "(", "+", "a\\b", "1", "2", "10", "k:0", "~", ""]
)
NAMES = st.lists(WORDS, min_size=1, max_size=4).map("/".join) | st.text("ab1/._:0\\$\n", max_size=8)


@given(st.dictionaries(NAMES, st.none() | NAMES, max_size=12))
def test_rules_say_exactly_what_is_wanted(wanted):
    assert agrees(find_rules(wanted), wanted)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3), st.sampled_from(["w", "b", "gamma"])), max_size=12),
       st.permutations(["x", "y", "z"]), st.booleans(), st.sampled_from([None, "b", "gamma"]))  # fmt: skip
def test_rules_of_systematic_renamings(places, order, shifted, left):
    wanted = {}
    for block, unit, leaf in places:
        new = f"{order[block]}/{unit + shifted}/{leaf}"
        wanted[f"block{block}/unit_{unit}/{leaf}"] = None if leaf == left else new
    rules = find_rules(wanted)
    assert agrees(rules, wanted) and len(rules) <= len(wanted)


@settings(max_examples=50)
@given(st.dictionaries(NAMES, st.sampled_from([(), (2,), (2, 3)]), max_size=10),
       st.dictionaries(NAMES, st.sampled_from([(), (2,), (2, 3)]), max_size=10))  # fmt: skip
def test_any_names_give_a_suggestion_that_holds(into, file):
    assert str(suggested(into, file)).startswith("rules = [")


@pytest.mark.parametrize("seed", range(3))
def test_consistent_new_words_are_found_or_called_unsure(seed):
    """All words but the leaves are replaced by meaningless ones, and what is counted begins at 1."""
    random = np.random.RandomState(seed)
    known: dict[str, str] = {}

    def renamed(found):
        word = found.group()
        if word.isdigit():
            return str(int(word) + 1)
        if word in ("kernel", "bias", "weights", "gamma", "beta", "moving_mean", "moving_variance"):
            return word
        return known.setdefault(word, "".join(random.choice(list("abcdefghijklmnopqrstuvwxyz"), 6)))

    for scheme in (bert_tf1(3), resnet_slim()):
        into = names(scheme)
        right = {name: re.sub(r"[A-Za-z]+(?:_[a-z]+)*|\d+", renamed, name) for name in into}
        found = suggested(into, {right[name]: shape for name, shape in into.items()})
        assert not doubtful(found, right)


def test_the_parts_of_a_name():
    parts = split("resnet_v1_50/block1/unit_2/bottleneck_v1/conv3/BatchNorm/moving_mean", (64,))
    assert parts.role == "mean" and parts.words[-2:] == ("norm", "batchnorm")
    assert [number for _, number in parts.numbers] == [50, 1, 2, 3]
    assert split("bert/~/layer_norm_1/scale:0", (8,)).role == "scale" == split("ln.weight", (8,)).role
    assert split("conv2d_1/kernel", (3, 3, 1, 8)).numbers == (("/conv", 1),)
