"""`hvp.resumable`: an operator whose products survive the process."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import scipy.sparse.linalg
from scipy.sparse.linalg import LinearOperator

from hvp.errors import InputError, shown
from hvp.linalg.counted_operator import Operator
from hvp.linalg.density import Density
from hvp.linalg.eigenpairs import Eigenpairs
from hvp.linalg.estimate import Estimate
from hvp.linalg.layer_traces import BlockTraces, LayerTraces
from hvp.linalg.measure import BatchJackknife
from hvp.linalg.noise_floor import Noise
from hvp.linalg.solve import Solution
from hvp.resuming import identity
from hvp.resuming.journal import Journal
from hvp.resuming.journal_file import JournalError
from hvp.sampling_error import BatchForms, BatchGrams

Result = TypeVar("Result")
# What results of `hvp.linalg` consist of.
CLASSES: tuple[type, ...] = (
    BatchForms, BatchGrams, BatchJackknife, BlockTraces, Density, Eigenpairs, Estimate,
    LayerTraces, Noise, Solution,
)  # fmt: skip
PROBE = "a product that tells the operator"


def resumable(
    A: Operator,
    path: str | os.PathLike[str],
    *,
    key: str | None = None,
    max_bytes: float | None = None,
    fresh: bool = False,
    say: Callable[[str], None] | None = None,
) -> Resumable:
    """A as an operator whose products are kept in a file: a solver that was killed goes on.

    Every solver that is deterministic for a given start (`hvp.eigsh`, `hvp.density`, `hvp.trace`,
    SciPy's ``eigsh``, ``lobpcg``, ``cg``, ``minres``) asks for the same products when it is started
    again. Those that are in the file are read, which takes a small part of the time, until the
    solver is where it was. A product in the file is found by a digest of its vector, bit for bit.
    Killed at any moment, only the product in flight is lost; where the power fails, perhaps the
    last ones too.

    The file is an SQLite database with a write-ahead log, a checksum for each record, and digests
    of the operator. It is data: nothing in it is unpickled or run. One process uses it at a time.
    `Resumable.stage` keeps a result in the place of the products that led to it.

    Args:
        A: a SciPy LinearOperator, sparse or dense matrix.
        path: of the file, which is made where there is none.
        key: a name for the operator, to be changed whenever the operator changes. Without it, the
            operators of `hvp` are known by digests of data, weights and objective; of another
            operator a product with a fixed random vector is compared, up to rounding.
        max_bytes: of products and results in the file; None for a quarter of what is free on the
            disk. Products beyond it are made but not kept, which is said: the work goes on, and
            when it is killed goes on from those that were kept. A full disk counts as this limit.
        fresh: empty a journal that is there.
        say: called with one line where products are left out: those of another start or solver,
            those beyond the limit, damaged ones. None for a warning.

    Returns:
        A `Resumable`, of the shape and dtype of A.

    Raises:
        InputError: A is no operator; or the file cannot be used: it is a directory, another file,
            the journal of another operator, in use by another process, damaged, or cannot be
            written. What is there stays as it is.

    >>> import tempfile, hvp, numpy as np
    >>> A = np.diag(np.arange(1.0, 601.0))
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     with hvp.resumable(A, f"{directory}/top.journal") as first:
    ...         _ = hvp.eigsh(first, 2, max_products=5, tol=0.1)  # and the process dies here
    ...     with hvp.resumable(A, f"{directory}/top.journal") as again:
    ...         top = again.stage("top", lambda: hvp.eigsh(again, 2, tol=0.1))
    ...         print(again.journal.num_replayed, "of", again.journal.num_found, "products")
    ...     with hvp.resumable(A, f"{directory}/top.journal") as done:
    ...         print(done.stage("top", lambda: None).values.round(1).tolist())
    29 of 29 products
    [590.6, 598.9]
    """
    try:
        operator = scipy.sparse.linalg.aslinearoperator(A)
    except TypeError as error:
        got = type(A).__name__
        raise InputError("a SciPy LinearOperator or a matrix", got, "wrap it") from error
    if not (key is None or isinstance(key, str)):
        raise InputError("a key that is a text", shown(key), "pass a name, or leave it out")
    owner = identity.of_operator(operator, key)
    journal = Journal(path, owner, max_bytes=max_bytes, fresh=fresh, classes=CLASSES, say=say)
    if key is None and "name" not in owner:
        try:
            _check_probe(operator, journal)
        except BaseException:
            journal.close()
            raise
    return Resumable(operator, journal)


def _check_probe(A: LinearOperator, journal: Journal) -> None:
    """Raise JournalError where a product is not the one that the journal has."""
    product = identity.probe(A)
    before = journal.stage(PROBE, lambda: product)
    if not identity.is_same(product, before):
        got = f"{str(journal.path)!r}, whose product with the same vector is another"
        remedy = "choose another path, or pass fresh=True to empty it"
        raise JournalError("other", "a journal of this operator", got, remedy)


class Resumable(LinearOperator):
    """An operator whose products are kept in a journal: see `resumable`.

    Attributes:
        journal: the file.
    """

    def __init__(self, operator: LinearOperator, journal: Journal, name: str = "A"):
        super().__init__(operator.dtype, operator.shape)
        self.journal = journal
        self._operator, self._name = operator, name

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        return self.journal.call(f"{self._name}v", [v], lambda: self._operator.matvec(v))

    def _matmat(self, V: np.ndarray) -> np.ndarray:
        return self.journal.call(f"{self._name}V", [V], lambda: self._operator.matmat(V))

    def _adjoint(self) -> Resumable:
        adjoint = self._operator.adjoint()
        if adjoint is self._operator:
            return self
        return Resumable(adjoint, self.journal, f"{self._name} adjoint ")

    def __getattr__(self, name: str) -> Any:
        """What else the operator has, such as `batch_grams`, whose results are not kept."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._operator, name)

    def stage(self, name: str, compute: Callable[[], Result]) -> Result:
        """The result of `compute`, which is kept under this name in place of the products.

        Where it is in the file already, nothing is computed. It may consist of numbers, texts,
        arrays, tuples, lists, dicts and results of `hvp`. Raises InputError for others.
        """
        return self.journal.stage(name, compute)

    def close(self) -> None:
        """Close the file, which stays: another process can go on. Later calls do nothing."""
        self.journal.close()

    def remove(self) -> None:
        """Close the file and delete it."""
        self.journal.remove()

    def __enter__(self) -> Resumable:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
