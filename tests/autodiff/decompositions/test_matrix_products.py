"""Sums over indices, matrix products and biases: values and derivatives against NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from support.derivatives import derivatives_agree, program_of
from support.oracles import relative
from support.programs import drawn, run, spec, types
from support.sweep import sweep

import hvp
from hvp.autodiff.decompositions.matrix_products import LARGE_MATRIX_ENTRIES
from hvp.autodiff.tracing import trace
from hvp.passes.simplify import simplify as fold

raw = tf.raw_ops

# --- sums over indices ---

SIZES = dict(zip("abcdef", (2, 3, 4, 5, 1, 2), strict=True))

EQUATIONS = [
    "ab,bc->ac",
    "ab,cb->ac",
    "ba,bc->ca",
    "abc,cd->abd",
    "abc,adc->abd",
    "abc,abd->acd",
    "abcd,aecd->aebd",
    "abcd,acbe->abde",
    "abc,bcd->ad",
    "abc,dbc->da",
    "ab,cd->abcd",
    "ab,cd->dbca",
    "ab,ab->ab",
    "ab,ba->ab",
    "ab,ab->",
    "a,b->ab",
    "a,a->",
    "ab,b->a",
    "b,ab->a",
    "ab,b->ab",
    "ab,->ab",
    "abe,eb->ae",
    "abc,ad->abcd",
    "afb,fb->af",
]

OTHERS = ["ab,bc->a", "aab,bc->ac", "ab,ac->bc", "abc->ca", "ab->", "...b,bc->...c", "ab,bc->ca"]


def shapes_of(equation):
    terms = equation.partition("->")[0].split(",")
    return [tuple(SIZES[c] for c in term.replace("...", "a").replace("aa", "aa")) for term in terms]


OFTEN = {
    "abc,cd->abd",
    "abcd,aecd->aebd",
    "abc,bcd->ad",
    "ab,cd->dbca",
    "ab,ab->",
    "ab,b->ab",
    *OTHERS,
}


@pytest.mark.parametrize("equation", sweep(EQUATIONS + OTHERS, OFTEN))
def test_a_sum_over_indices_in_both_operands(equation):
    x, *others = [drawn(*shape, seed=i) for i, shape in enumerate(shapes_of(equation))]
    program, folded = program_of(
        lambda x: raw.Einsum(inputs=[x, *others], equation=equation), x.shape
    )
    for each in (program, folded):
        derivatives_agree(each, lambda x: np.einsum(equation, x, *others), x)
    if equation in EQUATIONS:
        assert "Einsum" not in types(folded)
    if others:
        (y,) = others
        program, folded = program_of(
            lambda y: raw.Einsum(inputs=[x, y], equation=equation), y.shape
        )
        for each in (program, folded):
            derivatives_agree(each, lambda y: np.einsum(equation, x, y), y)


def test_a_sum_over_indices_of_an_array_with_itself():
    program, folded = program_of(lambda x: tf.einsum("ab,cb->ac", x, x), (2, 3))
    for each in (program, folded):
        derivatives_agree(each, lambda x: np.einsum("ab,cb->ac", x, x), drawn(2, 3))


# --- matrix products ---

PRODUCTS = {
    "a batch and one matrix": ((2, 3, 4), (4, 5), False, False),
    "a batch and one matrix, transposed": ((2, 3, 4), (5, 4), False, True),
    "a batch and a batch of one": ((2, 3, 4), (1, 4, 5), False, False),
    "two axes and one matrix": ((2, 2, 3, 4), (4, 5), False, False),
    "a batch of one": ((1, 3, 4), (4, 5), False, False),
    "a batch, transposed, and one matrix": ((2, 4, 3), (4, 5), True, False),
    "a batch and a batch": ((2, 3, 4), (2, 4, 5), False, False),
    "a matrix and a batch": ((3, 4), (2, 4, 5), False, False),
    "matrices": ((3, 4), (4, 5), False, False),
    "outer products": ((2, 3, 1), (2, 1, 5), False, False),
    "outer products, transposed": ((2, 1, 3), (2, 5, 1), True, True),
    "outer products with one": ((2, 3, 1), (1, 5), False, False),
    "outer products, one transposed": ((2, 1, 3), (1, 5), True, False),
    "a row times a column": ((2, 1, 4), (2, 4, 1), False, False),
    "a batch and one matrix of more axes": ((2, 3, 4), (1, 1, 4, 5), False, False),
    "outer products of more axes": ((2, 3, 1), (1, 1, 1, 5), False, False),
}


@pytest.mark.parametrize(("x", "y", "adjoint_x", "adjoint_y"), PRODUCTS.values(), ids=PRODUCTS)
def test_batches_of_matrix_products(x, y, adjoint_x, adjoint_y):
    a, b = drawn(*x), drawn(*y, seed=1)

    def oracle(a, b):
        return np.matmul(
            a.swapaxes(-1, -2) if adjoint_x else a, b.swapaxes(-1, -2) if adjoint_y else b
        )

    def function(a, b):
        return raw.BatchMatMulV2(x=a, y=b, adj_x=adjoint_x, adj_y=adjoint_y)

    for each in program_of(lambda a: function(a, b), x):
        derivatives_agree(each, lambda a: oracle(a, b), a)
    for each in program_of(lambda b: function(a, b), y):
        derivatives_agree(each, lambda b: oracle(a, b), b)


@pytest.mark.parametrize("inner", [1, 4])
@pytest.mark.parametrize(("adjoint_x", "adjoint_y"), [(False, True), (True, False), (True, True)])
def test_adjoints_of_complex_matrices_are_conjugate(inner, adjoint_x, adjoint_y):
    def complex_(shape, seed, adjoint):
        shape = (*shape[:-2], shape[-1], shape[-2]) if adjoint else shape
        return drawn(*shape, seed=seed) + 1j * drawn(*shape, seed=seed + 1)

    def adjoint(a, wanted):
        return a.conj().swapaxes(-1, -2) if wanted else a

    x, y = complex_((2, 3, inner), 0, adjoint_x), complex_((1, inner, 5), 2, adjoint_y)
    program, folded = program_of(
        lambda scale: raw.BatchMatMulV2(
            x=tf.cast(scale, tf.complex128) * x, y=y, adj_x=adjoint_x, adj_y=adjoint_y
        ),
        (),
    )
    for each in (program, folded):
        (got,) = run(each, np.array(1.0))
        assert relative(got, adjoint(x, adjoint_x) @ adjoint(y, adjoint_y)) < 1e-14


def test_a_product_over_nothing_adds_nothing():
    def loss(w):
        nothing = tf.matmul(tf.reshape(w, [3, 4, 1])[:, :, :0], w[:0, :])
        return tf.reduce_sum(nothing) + tf.reduce_sum(w**3)

    w = drawn(3, 4)
    lin = hvp.linearize_function(loss, w, jit=False)
    assert relative(lin.hvp(np.eye(12)), np.diag(6 * w.reshape(-1))) < 1e-14


def test_a_batch_times_one_matrix_is_one_product_whose_gradient_is_too():
    def gradient(y, x):
        with tf.GradientTape() as tape:
            tape.watch(y)
            value = tf.reduce_sum(product.replay(x, y) ** 2)
        return tape.gradient(value, y)

    product = trace(tf.matmul, spec(6, 3, 4), spec(4, 5))
    kinds = types(fold(trace(gradient, spec(4, 5), spec(6, 3, 4))))
    assert "BatchMatMulV2" not in kinds
    assert kinds.count("MatMul") == 2
    # Otherwise the matrix is repeated for each of the batch, and the gradients are summed.
    assert not {"BroadcastTo", "Sum", "Tile"} & set(kinds)


def test_a_large_matrix_is_not_transposed():
    rows = LARGE_MATRIX_ENTRIES // 512
    x, y = drawn(2, 512), drawn(rows, 512)
    program, folded = program_of(lambda x: tf.matmul(x, y, transpose_b=True), (2, 512))
    assert sorted(types(folded)) == ["MatMul", "Transpose", "Transpose"]
    for node in folded.nodes:
        if node.op.type == "MatMul":
            assert not node.op.get_attr("transpose_a")
            assert not node.op.get_attr("transpose_b")
    for each in (program, folded):
        assert np.allclose(run(each, x)[0], x @ y.T, rtol=1e-12, atol=1e-11)
    with tf.GradientTape() as tape:
        tape.watch(point := tf.constant(x))
        value = tf.reduce_sum(program.replay(point) ** 2)
    assert np.allclose(tape.gradient(value, point), 2 * (x @ y.T) @ y, rtol=1e-11)


@pytest.mark.parametrize(
    ("x", "y"), [((2, 512), (LARGE_MATRIX_ENTRIES // 512 - 1, 512)), ((600, 512), (512, 512))]
)
def test_other_matrices_are_multiplied_as_they_are(x, y):
    other = drawn(*y)
    _, folded = program_of(lambda x: tf.matmul(x, other, transpose_b=True), x)
    assert types(folded) == ["MatMul"]


# --- biases ---


@pytest.mark.parametrize("shape", [(2, 3), (2, 4, 3), (2, 3, 2, 3)], ids=str)
def test_a_bias_and_its_gradient(shape):
    x, b = drawn(*shape), drawn(3, seed=1)
    for each in program_of(lambda b: raw.BiasAdd(value=x, bias=b), (3,)):
        derivatives_agree(each, lambda b: x + b, b)
    for each in program_of(lambda x: raw.BiasAdd(value=x, bias=b), shape):
        derivatives_agree(each, lambda x: x + b, x)
    for each in program_of(lambda x: raw.BiasAddGrad(out_backprop=x), shape):
        derivatives_agree(each, lambda x: x.sum(tuple(range(x.ndim - 1))), x)


def test_a_bias_of_channels_in_front_is_left_alone():
    x, b = drawn(2, 3, 4, 4), drawn(3)
    program, folded = program_of(
        lambda b: raw.BiasAdd(value=tf.constant(x), bias=b, data_format="NCHW"), (3,)
    )
    assert types(folded) == ["BiasAdd"]
    assert (run(program, b)[0] == x + b[:, None, None]).all()
    program, folded = program_of(
        lambda x: raw.BiasAddGrad(out_backprop=x, data_format="NCHW"), x.shape
    )
    assert types(folded) == ["BiasAddGrad"]
    assert np.allclose(run(program, x)[0], x.sum((0, 2, 3)), rtol=1e-13)
