"""The flat vector: order, names, selection."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.oracles import dense_net, examples

import hvp
from hvp.objective.parameters import Layout, layer_of

NAMES = ["encoder/dense1/kernel", "encoder/dense1/bias", "encoder/dense2/kernel", "head/kernel"]
LAYOUT = Layout([*NAMES, "scale"], [(2, 3), (3,), (3, 1), (1, 2), ()], np.dtype("float64"))


def test_parameters_lie_in_order_row_major():
    tensors = [np.arange(6.0).reshape(2, 3), np.arange(3.0), np.ones((3, 1)), np.zeros((1, 2)), 7.0]
    vector = LAYOUT.join([tf.constant(t, tf.float64) for t in tensors]).numpy()
    assert vector.tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2, 1, 1, 1, 0, 0, 7]
    assert LAYOUT.size == 15
    assert [vector[where].tolist() for where in LAYOUT.slices[:2]] == [
        [0, 1, 2, 3, 4, 5],
        [0, 1, 2],
    ]


def test_split_undoes_join():
    pieces = LAYOUT.split(tf.range(15.0))
    assert [tuple(p.shape) for p in pieces] == [(2, 3), (3,), (3, 1), (1, 2), ()]
    assert pieces[0].numpy().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert LAYOUT.join(pieces).numpy().tolist() == list(range(15))


def test_the_layer_stands_before_the_last_slash():
    assert layer_of("encoder/dense1/kernel") == "encoder/dense1"
    assert layer_of("scale") == "scale"
    assert LAYOUT.layers == {
        "encoder/dense1": (0, 1),
        "encoder/dense2": (2,),
        "head": (3,),
        "scale": (4,),
    }


@pytest.mark.parametrize(
    ("patterns", "positions"),
    [
        ("head", (3,)),
        ("encoder", (0, 1, 2)),
        ("encoder/dense1", (0, 1)),
        ("encoder/dense1/bias", (1,)),
        ("*/bias", (1,)),
        ("encoder/dense?", (0, 1, 2)),
        ("*", (0, 1, 2, 3, 4)),
        (["scale", "head", "head"], (3, 4)),
        (("*kernel",), (0, 2, 3)),
    ],
)
def test_names_parents_and_globs_select(patterns, positions):
    assert LAYOUT.select(patterns) == positions


@pytest.mark.parametrize("pattern", ["dense1", "enc", "Head", "head/", ""])
def test_a_pattern_that_names_nothing_lists_the_layers(pattern):
    with pytest.raises(hvp.InputError, match="encoder/dense1, encoder/dense2, head, scale, got"):
        LAYOUT.select(pattern)


def test_one_bad_pattern_among_good_ones_is_named():
    with pytest.raises(hvp.InputError, match="got 'tail'"):
        LAYOUT.select(["head", "tail"])


def test_an_empty_selection_is_refused():
    with pytest.raises(hvp.InputError, match="expected at least one layer, got none"):
        LAYOUT.select([])


def test_restricting_keeps_names_shapes_and_dtype():
    some = LAYOUT.restrict((1, 3))
    assert some.names == (NAMES[1], NAMES[3])
    assert some.shapes == ((3,), (1, 2))
    assert some.slices == (slice(0, 3), slice(3, 5))
    assert some.dtype == np.float64


def test_names_and_theta_are_those_of_the_model():
    model = dense_net()
    lin = hvp.linearize(model, (examples((4,)), np.zeros((7, 3))), "mse")
    assert lin.names[:3] == ("dense1/kernel", "dense1/bias", "dense2/kernel")
    assert lin.theta.tolist() == np.concatenate([w.ravel() for w in model.get_weights()]).tolist()
    assert lin.theta.dtype == lin.dtype == np.float64


def test_what_is_a_name_is_not_a_glob():
    names = ["l[1]/kernel", "l1/kernel", "l1/bias", "what?/kernel", "whats/kernel"]
    layout = Layout(names, [(1,)] * 5, np.dtype("float64"))
    assert layout.select("l[1]") == layout.select("l[1]/kernel") == (0,)
    assert layout.select("l[12]") == (1, 2)
    assert layout.select("what?") == (3,)
    assert layout.select(["what*", "l[1]"]) == (0, 3, 4)


def test_nested_models_keep_their_name_in_the_path():
    dense = keras.layers.Dense
    inner = keras.Sequential([keras.Input((4,)), dense(3, name="dense")], name="encoder")
    model = keras.Sequential([keras.Input((4,)), inner, dense(2, name="head")], name="whole")
    lin = hvp.linearize(model, (examples((4,)), np.zeros((7, 2))), "mse")
    assert lin.names == ("encoder/dense/kernel", "encoder/dense/bias", "head/kernel", "head/bias")
    assert lin.block("encoder").size == 15


def test_frozen_layers_are_not_parameters():
    model = dense_net()
    model.get_layer("dense2").trainable = False
    lin = hvp.linearize(model, (examples((4,)), np.zeros((7, 3))), "mse")
    assert lin.names == ("dense1/kernel", "dense1/bias", "dense3/kernel", "dense3/bias")


def test_function_parameters_are_named_after_their_variables():
    params = [tf.Variable(1.0, name="scale"), keras.Variable(2.0, name="shift"), np.float32(3.0)]
    lin = hvp.linearize_function(lambda p: p[0] * p[1] * p[2], params)
    assert lin.names == ("scale", "shift", "param2")
    assert lin.theta.tolist() == [1, 2, 3]
    assert (lin.hvp(np.eye(3)) == [[0, 3, 2], [3, 0, 1], [2, 1, 0]]).all()


def test_equal_names_are_made_unique():
    params = [tf.Variable(1.0, name="a"), tf.Variable(2.0, name="a")]
    assert hvp.linearize_function(lambda p: p[0] * p[1], params).names == ("a", "a_2")
