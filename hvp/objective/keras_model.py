"""The objective that `fit` minimises for a Keras model: its losses, weights, masks and penalties.

It has one term for each output with a loss, one for the losses that layers add (`add_loss`,
activity regularisers), and the penalties on the weights.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import keras
import tensorflow as tf

from hvp.errors import InputError, shown
from hvp.objective import by_output, files, keras_losses, keras_weights, likelihoods, model_checks
from hvp.objective.keras_losses import Term
from hvp.objective.objective import Evaluation, Likelihood, Objective, Point, Target, name_of
from hvp.objective.output_channels import channel_axes


@final
class KerasObjective(Objective):
    """The objective of a built Keras model; its trainable variables are the parameters.

    `loss` is a Keras loss, its name or a function, or a nest of them by output; with None it is the
    compiled loss of the model. `class_weight` maps a class number to the weight of its examples.
    Raises InputError for a model or a loss that has no such objective.
    """

    def __init__(
        self,
        model: keras.Model,
        loss: Any,
        *,
        training: bool,
        class_weight: Mapping[int, float] | None,
    ):
        model_checks.check_model(model)
        model_checks.refuse_layers(model)
        if class_weight is not None and not isinstance(class_weight, Mapping):
            raise InputError("class_weight as a dict", class_weight, "give {class number: weight}")
        has_own_loss, weights = False, None
        if loss is None:
            if not model.compiled:
                raise InputError("a loss", f"{model.name!r} compiled without one", "pass loss=")
            model_checks.refuse_own_step(model)
            has_own_loss = type(model).compute_loss is not keras.Model.compute_loss
            loss, weights = model.loss, model.get_compile_config().get("loss_weights")
        self._model, self._training, self._class_weight = model, training, class_weight
        self._has_own_loss = has_own_loss
        self._loss = None if has_own_loss else _resolve(loss)
        self._loss_weights = weights
        self._output_names: list[Any] = []
        variables, self._state_variables = keras_weights.parameters_and_state(model)
        self._keras_variables = variables
        self._penalised = [
            (i, v.regularizer) for i, v in enumerate(variables) if v.regularizer is not None
        ]
        layers = list(model._flatten_layers(include_self=False))
        super().__init__(
            names=keras_weights.names(model),
            values=[tf.convert_to_tensor(variable.value) for variable in variables],
            variables=[variable.value for variable in variables],
            state=[tf.convert_to_tensor(variable.value) for variable in self._state_variables],
            state_variables=[variable.value for variable in self._state_variables],
            loss_name=(
                f"{type(model).__name__}.compute_loss" if has_own_loss else _loss_name(self._loss)
            ),
            has_penalty=bool(self._penalised) and not has_own_loss,
            layers=[model.name, *(layer.name for layer in layers)],
            mixing=[
                layer.name for layer in layers if training and model_checks.mixes_examples(layer)
            ],
            notes=list(model_checks.notes(model, training)),
            channel_axes=channel_axes(layers, variables),
        )

    def evaluate(
        self, params: Sequence[tf.Tensor], batch: Any, state: Sequence[tf.Tensor] | None = None
    ) -> Evaluation:
        """The loss of a batch, as `fit` computes it, without the penalties on the weights."""
        pairs = zip(self._keras_variables, params, strict=True)
        replaced = [(variable, param) for variable, param in pairs if param is not variable.value]
        given = [] if state is None else list(zip(self._state_variables, state, strict=True))
        stateless = keras.StatelessScope([*replaced, *given], collect_losses=True)
        with _kept_losses(self._model), stateless as scope:
            evaluation = self._terms(batch, params[0].dtype, scope)
        model_checks.refuse_assigned(replaced, scope)
        # Layers that mix examples update batch statistics; what is random updates seeds, which
        # need not be the model's.
        own = {id(v) for v in (*self._keras_variables, *self._model.metrics_variables)}
        kept = {id(variable): tensor for variable, tensor in given}
        has_new_state = any(
            key not in own and tensor is not kept.get(key)
            for key, tensor in scope.state_mapping.items()
        )
        return evaluation._replace(separable=evaluation.separable and not has_new_state)

    def penalty(self, params: Sequence[tf.Tensor]) -> tf.Tensor:
        """The sum of the regularisers of all weights."""
        return tf.add_n([regularizer(params[i]) for i, regularizer in self._penalised])

    def check_count(self, num_batches: int) -> None:
        """Keras says how the losses of several batches add up."""

    def targets(self, batch: Any) -> list[Target]:
        """The positions of each term's output, and of its target among the tensors of a batch."""
        numbers = itertools.count(len(self.state))
        numbered = tf.nest.map_structure(lambda t: None if t is None else next(numbers), batch)
        y = keras.utils.unpack_x_y_sample_weight(numbered)[1]
        return [
            Target(
                self._output_names.index(name),
                self._for_output(y, name, "targets"),
                likelihoods.distribution(loss),
            )
            for name, loss, _ in self._losses()
        ]

    def check_targets(self, batch: Any, last_axes: Sequence[int]) -> None:
        """Raise InputError for targets that are invalid for outputs with these last axes."""
        y = keras.utils.unpack_x_y_sample_weight(batch)[1]
        for name, loss, _ in self._losses():
            target = self._for_output(y, name, "targets")
            keras_losses.check_targets(loss, target, last_axes[self._output_names.index(name)])

    def point(self, source: Any) -> Point:
        """The weights of a model, or of a ``.keras`` or ``.weights.h5`` file.

        They belong to these parameters by their order. Raises InputError for a model with weights
        of other shapes, and for what is no model.
        """
        if isinstance(source, str | Path):
            if str(source).endswith(keras_weights.SUFFIX):
                variables, count = (
                    [*self._keras_variables, *self._state_variables],
                    len(self.values),
                )
                values = keras_weights.load(self._model, variables, Path(source))
                return Point(values[:count], values[count:])
            source = files.load_model(source, compiled=False)
        if not isinstance(source, keras.Model):
            raise InputError(
                "a vector, a list of arrays, a Keras model or its file",
                shown(source),
                "pass one of these",
            )
        trained, state = keras_weights.parameters_and_state(source)
        return Point(
            keras_weights.matching(self.values, trained), keras_weights.matching(self.state, state)
        )

    def may_miss(self, batch: Any) -> Any:
        """The targets, of losses that are not those of Keras; weights by class need them."""
        losses = [self._model.compute_loss] if self._has_own_loss else tf.nest.flatten(self._loss)
        has_targets = isinstance(batch, tuple | list) and len(batch) > 1
        is_own = all(map(keras_losses.is_own, losses)) and self._class_weight is None
        return batch[1] if has_targets and is_own else []

    def _terms(self, batch: Any, dtype: tf.DType, scope: keras.StatelessScope) -> Evaluation:
        """The terms of the loss; runs inside the scope that sets the parameters."""
        x, y, weight = self._unpacked(batch, dtype)
        try:
            predicted = self._model(x, training=self._training)
        except Exception:  # layers raise many kinds
            model_checks.check_inputs(self._model, x)
            raise
        outputs = self._outputs(predicted)
        rows = tf.nest.flatten(x)[0].shape[0]
        for z in outputs.values():
            _set_rows(z, rows)
        masks = {name: keras_losses.mask_of(z) for name, z in outputs.items()}
        zs = {name: z if z.dtype == dtype else tf.cast(z, dtype) for name, z in outputs.items()}
        terms, hits, losses = [], None, self._losses()
        for name, loss, scale in losses:
            target = self._for_output(y, name, "targets")
            sample_weight = self._for_output(weight, name, "sample weights", shared=True)
            term = _term(loss, target, zs[name], sample_weight, masks[name])
            terms.append(term.scaled(scale))
            hits = keras_losses.hits(loss, target, zs[name]) if len(zs) == 1 else None
        likelihood = Likelihood(
            [term.values for term in terms],
            [term.mean for term in terms],
            [term.expected for term in terms],
        )
        candidates = [keras_losses.candidates(z) for z in zs.values()]
        added = (
            [self._compute_loss(x, y, predicted, weight)] if self._has_own_loss else scope.losses
        )
        if added:
            whole = tf.add_n([tf.reduce_sum(tf.cast(a, dtype)) for a in added])
            count = tf.cast(tf.shape(tf.nest.flatten(x)[0])[0], dtype)
            terms.append(Term(whole * count, count, True))
            candidates.append([whole])
        if not terms:
            raise InputError("a loss", f"{self._model.name!r} compiled without one", "pass loss=")
        return Evaluation(
            totals=[term.total for term in terms],
            divisors=[term.divisor for term in terms],
            outputs=candidates,
            separable=all(term.separable for term in terms),
            hits=hits,
            likelihood=likelihood,
        )

    def _unpacked(self, batch: Any, dtype: tf.DType) -> tuple[Any, Any, Any]:
        x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
        if y is None and self._loss is not None:
            raise InputError("batches (x, y)", "x alone", "pass the targets too, (x, y) as a tuple")
        if self._class_weight is None:
            return x, y, weight
        if weight is not None or tf.nest.is_nested(y):
            raise InputError(
                "class weights with a single output and without sample weights",
                "both" if weight is not None else "several targets",
                "multiply them into the sample weights",
            )
        return x, y, keras_losses.class_weights(dict(self._class_weight), y, dtype)

    def _outputs(self, predicted: Any) -> dict[Any, tf.Tensor]:
        """The outputs by name, or by position where they have no names."""
        if isinstance(predicted, Mapping):
            outputs = dict(predicted)
        else:
            listed = predicted if isinstance(predicted, list | tuple) else [predicted]
            names = getattr(self._model, "output_names", None) or range(len(listed))
            outputs = dict(zip(names, listed, strict=True))
        if not all(map(tf.is_tensor, outputs.values())):
            raise InputError(
                "a model that returns a tensor, or a list or dict of them",
                f"{self._model.name!r} with another nest",
                "flatten its outputs",
            )
        self._output_names = list(outputs)
        return outputs

    def _losses(self) -> list[tuple[Any, keras.Loss, Any]]:
        """The name, the loss and the loss weight of each output that has a loss."""
        found = []
        for name in self._output_names:
            loss = self._for_output(self._loss, name, "losses", shared=True)
            if loss is not None:
                by_output.require_loss_weight(self._loss_weights, name)
                found.append(
                    (name, loss, self._for_output(self._loss_weights, name, "loss weights"))
                )
        return found

    def _for_output(self, given: Any, name: Any, what: str, *, shared: bool = False) -> Any:
        return by_output.entry(given, name, self._output_names, what, shared=shared)

    def _compute_loss(self, x: Any, y: Any, predicted: Any, weight: Any) -> tf.Tensor:
        """The scalar result of the `compute_loss` that the model overrides."""
        given = {"x": x, "y": y, "y_pred": predicted, "sample_weight": weight}
        accepted = inspect.signature(self._model.compute_loss).parameters
        if "training" in accepted or any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
            given["training"] = self._training
        return self._model.compute_loss(**given)


@contextlib.contextmanager
def _kept_losses(model: keras.Model) -> Iterator[None]:
    """A block after which the layers have the losses of their last call again (`model.losses`).

    A call empties them first, also one in a scope that collects its losses.
    """
    layers = list(model._flatten_layers())
    kept = [(list(layer._losses), set(layer._loss_ids)) for layer in layers]
    try:
        yield
    finally:
        for layer, (losses, ids) in zip(layers, kept, strict=True):
            layer._losses[:] = losses
            layer._loss_ids.clear()
            layer._loss_ids.update(ids)


def _term(loss: keras.Loss, target: Any, z: tf.Tensor, weight: Any, mask: Any) -> Term:
    """The term of one output. Raises InputError for targets of another shape."""
    try:
        return keras_losses.term(loss, target, z, weight, mask)
    except InputError:
        raise
    except Exception:  # losses raise many kinds
        keras_losses.check_target_shape(loss, target, z)
        raise


def _set_rows(z: tf.Tensor, rows: int) -> None:
    """Say that an output has a row for each example, where its shape is only known when it runs.

    `TextVectorization` forgets the number of examples.
    """
    for tensor in keras_losses.candidates(z):
        if tensor.shape.rank and tensor.shape[0] is None:
            tensor.set_shape([rows, *tensor.shape[1:]])


def _resolve(loss: Any) -> Any:
    """The nest of losses, each as a Keras loss."""
    if isinstance(loss, Mapping):
        return {name: _resolve(each) for name, each in loss.items()}
    if isinstance(loss, list | tuple):
        return [_resolve(each) for each in loss]
    return None if loss is None else keras_losses.resolve(loss)


def _loss_name(resolved: Any) -> str:
    found = [each for each in tf.nest.flatten(resolved) if each is not None]
    return " + ".join(name_of(getattr(each, "fn", each)) for each in found) or "add_loss"
