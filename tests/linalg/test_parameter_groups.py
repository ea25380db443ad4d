"""Traces and norms of tensors and of output channels, against dense algebra."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from support.estimators import MATRICES, SEEDS, P, assert_unbiased

import hvp

# A kernel of four output channels, its bias, a kernel by rows, and a scalar.
SHAPES = ((3, 5, 4), (4,), (5, 17), ())
EDGES = np.cumsum([0, 60, 4, 85, 1]).tolist()
LAYOUT = SimpleNamespace(
    layers={"conv": (0, 1), "words": (2,), "scale": (3,)},
    slices=tuple(slice(a, b) for a, b in itertools.pairwise(EDGES)),
    shapes=SHAPES,
    names=("conv/kernel", "conv/bias", "words/embeddings", "scale"),
    channel_axes=((2,), (0,), (0,), ()),
)
LIN = SimpleNamespace(layout=LAYOUT)


def masks():
    """Name of each group -> which of the P entries are its own, by marking an array of ones."""
    found = {}
    for name, own, shape, axes in zip(
        LAYOUT.names, LAYOUT.slices, SHAPES, LAYOUT.channel_axes, strict=True
    ):
        for channel in range(shape[axes[0]] if axes else 1):
            marked = np.zeros(shape)
            place = [slice(None)] * len(shape)
            if axes:
                place[axes[0]] = channel
            marked[tuple(place)] = 1
            whole = np.zeros(P)
            whole[own] = marked.ravel()
            found[f"{name}[{channel}]"] = whole > 0
    return found


def truth(A, mask):
    own = A[np.ix_(mask, mask)]
    return np.trace(own), np.sum(own**2)


def test_channels_are_unbiased_and_their_errors_right():
    A, own = MATRICES["indefinite"], masks()
    runs = [hvp.layer_traces(A, LIN, groups="channels", num_products=40, seed=s) for s in SEEDS]
    assert list(runs[0].layers) == list(own)
    for name in ("conv/kernel[0]", "conv/kernel[3]", "conv/bias[1]", "words/embeddings[4]"):
        trace, norm = truth(A, own[name])
        assert_unbiased([run.layers[name].trace for run in runs], trace)
        assert_unbiased([run.layers[name].squared_norm for run in runs], norm)


@pytest.mark.parametrize("groups", ["tensors", "channels"])
def test_groups_are_exact_from_as_many_products_as_parameters(groups):
    A = MATRICES["indefinite"]
    found = hvp.layer_traces(A, LIN, groups=groups, num_products=P)
    for name, mask in masks().items():
        if groups == "channels":
            block = found.layers[name]
            expected = truth(A, mask)
            assert (block.size, block.channel) == (mask.sum(), int(name[:-1].split("[")[1]))
            assert (block.trace.value, block.squared_norm.value) == pytest.approx(expected)
    for name, own in zip(LAYOUT.names, LAYOUT.slices, strict=True):
        blocks = [block for block in found.layers.values() if block.tensor == name]
        assert sum(block.trace.value for block in blocks) == pytest.approx(np.trace(A[own, own]))
        if groups == "tensors":
            assert blocks[0].squared_norm.value == pytest.approx(np.sum(A[own, own] ** 2))


def test_groups_add_up_sample_by_sample():
    A = MATRICES["spiked"]
    layers, tensors, channels = (
        hvp.layer_traces(A, LIN, groups=groups, num_products=30)
        for groups in ("layers", "tensors", "channels")
    )
    for name, block in layers.layers.items():
        for finer in (tensors, channels):
            own = [each.traces for each in finer.layers.values() if each.layer == name]
            np.testing.assert_allclose(np.sum(own, axis=0), block.traces, atol=1e-9)
    for finer in (tensors, channels):
        np.testing.assert_array_equal(finer.whole.traces, layers.whole.traces)


def test_rows_name_the_layer_the_tensor_and_the_channel():
    A = MATRICES["flat"]
    found = hvp.layer_traces(A, LIN, groups="channels", num_products=10)
    rows = found.rows()
    assert list(rows[2])[:4] == ["layer", "tensor", "channel", "size"]
    assert [rows[2][key] for key in ("layer", "tensor", "channel", "size")] == [
        "conv", "conv/kernel", 2, 15,
    ]  # fmt: skip
    assert [rows[-1][key] for key in ("layer", "tensor", "channel", "size")] == ["whole", "", -1, P]
    assert rows[2]["trace"] == found.layers["conv/kernel[2]"].trace.value
    tensors = hvp.layer_traces(A, LIN, groups="tensors", num_products=10)
    assert list(tensors.rows()[1])[:3] == ["layer", "tensor", "size"]
    assert tensors.rows()[1]["tensor"] == "conv/bias"
    assert repr(tensors).splitlines()[0] == "Traces of 4 tensors, 10 products"
    assert repr(tensors).splitlines()[1].split()[:2] == ["tensor", "P"]
    assert len(repr(found).splitlines()) <= 20


def test_shares_are_by_the_same_groups():
    A = MATRICES["spiked"]
    part, of = (hvp.layer_traces(B, LIN, groups="channels", num_products=30) for B in (A / 4, A))
    share = hvp.layer_shares(part, of).layers["conv/kernel[1]"]
    assert share.trace.value == pytest.approx(0.25)
    with pytest.raises(hvp.InputError, match="traces of the same layers"):
        hvp.layer_shares(part, hvp.layer_traces(A, LIN, num_products=30))


def test_other_groups_and_layouts_are_refused():
    with pytest.raises(hvp.InputError, match="groups among layers, tensors, channels, got 'rows'"):
        hvp.layer_traces(np.eye(P), LIN, groups="rows")
    with pytest.raises(hvp.InputError, match=r"groups among layers, tensors, channels, got \['l"):
        hvp.layer_traces(np.eye(P), LIN, groups=["layers"])
    plain = SimpleNamespace(layers=LAYOUT.layers, slices=LAYOUT.slices, names=LAYOUT.names)
    with pytest.raises(hvp.InputError, match="a layout with shapes, got SimpleNamespace"):
        hvp.layer_traces(np.eye(P), SimpleNamespace(layout=plain), groups="channels")
    with pytest.raises(hvp.InputError, match="layers of 3 parameters together"):
        hvp.layer_traces(np.eye(3), LIN, groups="channels")
