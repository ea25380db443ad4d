"""The objective that `fit` minimises for a Keras model: its losses, weights, masks and penalties.

It has one term for each output with a loss, one for the losses that layers add (`add_loss`,
activity regularisers), and the penalties on the weights.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, final

import keras
import tensorflow as tf

from hvp.errors import DataError, InputError
from hvp.objective import keras_losses, likelihoods
from hvp.objective.keras_losses import Term
from hvp.objective.objective import Evaluation, Likelihood, Objective, Target, name_of, unique


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
        _check_model(model)
        _refuse_layers(model)
        if class_weight is not None and not isinstance(class_weight, Mapping):
            raise InputError("class_weight as a dict", class_weight, "give {class number: weight}")
        has_own_loss, weights = False, None
        if loss is None:
            if not model.compiled:
                raise InputError("a loss", f"{model.name!r} compiled without one", "pass loss=")
            _refuse_own_step(model)
            has_own_loss = type(model).compute_loss is not keras.Model.compute_loss
            loss, weights = model.loss, model.get_compile_config().get("loss_weights")
        self._model, self._training, self._class_weight = model, training, class_weight
        self._has_own_loss = has_own_loss
        self._loss = None if has_own_loss else _resolve(loss)
        self._loss_weights = weights
        self._output_names: list[Any] = []
        variables = self._keras_variables = model.trainable_variables
        self._penalised = [
            (i, v.regularizer) for i, v in enumerate(variables) if v.regularizer is not None
        ]
        layers = model._flatten_layers(include_self=False)
        notes = list(_notes(model, training))
        super().__init__(
            names=_names(model),
            values=[tf.convert_to_tensor(variable.value) for variable in variables],
            variables=[variable.value for variable in variables],
            loss_name=(
                f"{type(model).__name__}.compute_loss" if has_own_loss else _loss_name(self._loss)
            ),
            has_penalty=bool(self._penalised) and not has_own_loss,
            layers=[model.name, *(layer.name for layer in layers)],
            mixing=[layer.name for layer in layers if _mixes(layer)] if training else [],
            notes=notes,
        )

    def evaluate(self, params: Sequence[tf.Tensor], batch: Any) -> Evaluation:
        """The loss of a batch, as `fit` computes it, without the penalties on the weights."""
        pairs = zip(self._keras_variables, params, strict=True)
        replaced = [(variable, param) for variable, param in pairs if param is not variable.value]
        with keras.StatelessScope(replaced, collect_losses=True) as scope:
            evaluation = self._terms(batch, params[0].dtype, scope)
        _refuse_assigned(replaced, scope)
        # Layers that mix examples update batch statistics; what is random updates seeds, which
        # need not be the model's.
        own = {id(v) for v in (*self._keras_variables, *self._model.metrics_variables)}
        has_new_state = not scope.state_mapping.keys() <= own
        return evaluation._replace(separable=evaluation.separable and not has_new_state)

    def penalty(self, params: Sequence[tf.Tensor]) -> tf.Tensor:
        """The sum of the regularisers of all weights."""
        return tf.add_n([regularizer(params[i]) for i, regularizer in self._penalised])

    def targets(self, batch: Any) -> list[Target]:
        """The positions of each term's output, and of its target among the tensors of a batch."""
        numbers = itertools.count()
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
            _check_inputs(self._model, x)
            raise
        outputs = self._outputs(predicted)
        for z in outputs.values():
            _set_rows(z, tf.nest.flatten(x)[0].shape[0])
        masks = {name: keras_losses.mask_of(z) for name, z in outputs.items()}
        zs = {name: z if z.dtype == dtype else tf.cast(z, dtype) for name, z in outputs.items()}
        terms, hits, losses = [], None, self._losses()
        for name, loss, scale in losses:
            target = self._for_output(y, name, "targets")
            sample_weight = self._for_output(weight, name, "sample weights", shared=True)
            try:
                term = keras_losses.term(loss, target, zs[name], sample_weight, masks[name])
            except InputError:
                raise
            except Exception:  # losses raise many kinds
                keras_losses.check_target_shape(loss, target, zs[name])
                raise
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
            whole=bool(added) or not all(keras_losses.is_by_example(each) for _, each, _ in losses),
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
                self._require_weight(name)
                found.append(
                    (name, loss, self._for_output(self._loss_weights, name, "loss weights"))
                )
        return found

    def _require_weight(self, name: Any) -> None:
        """Raise InputError for an output that has a loss but, as the only ones, no loss weight."""
        weights = self._loss_weights
        if isinstance(weights, Mapping) and weights.get(name) is None:
            raise InputError(
                "a loss weight for each output with a loss, as fit does",
                f"none for {name!r}",
                "give it the weight 1",
            )

    def _for_output(self, given: Any, name: Any, what: str, *, shared: bool = False) -> Any:
        """The entry of `given` for an output: by its name, by its position, or one for all."""
        if isinstance(given, Mapping) and set(given) <= set(self._output_names):
            return given.get(name)
        if isinstance(given, list | tuple) and len(given) == len(self._output_names):
            return given[self._output_names.index(name)]
        if given is None or (
            not tf.nest.is_nested(given) and (shared or len(self._output_names) == 1)
        ):
            return given
        if what == "losses" and isinstance(given, list | tuple) and len(self._output_names) == 1:
            raise InputError(
                f"one loss for the output {name}",
                f"{len(given)} of them, of which fit takes the first alone",
                "pass that loss by itself, or a function that adds them",
            )
        got = f"{len(given)} of them" if tf.nest.is_nested(given) else "one for all"
        raise InputError(
            f"{what} for the outputs {', '.join(map(str, self._output_names))}",
            f"{sorted(given)}" if isinstance(given, Mapping) else got,
            "give one per output, in a list or by name",
        )

    def _compute_loss(self, x: Any, y: Any, predicted: Any, weight: Any) -> tf.Tensor:
        """The scalar result of the `compute_loss` that the model overrides."""
        given = {"x": x, "y": y, "y_pred": predicted, "sample_weight": weight}
        accepted = inspect.signature(self._model.compute_loss).parameters
        if "training" in accepted or any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
            given["training"] = self._training
        return self._model.compute_loss(**given)


def _set_rows(z: tf.Tensor, rows: int) -> None:
    """Say that an output has a row for each example, where its shape is only known when it runs.

    `TextVectorization` forgets the number of examples.
    """
    for tensor in keras_losses.candidates(z):
        if tensor.shape.rank and tensor.shape[0] is None:
            tensor.set_shape([rows, *tensor.shape[1:]])


def _check_model(model: keras.Model) -> None:
    kinds = [kind.__module__.partition(".")[0] for kind in type(model).__mro__]
    if not isinstance(model, keras.Model) and "tf_keras" in kinds:
        raise InputError(
            "a model of Keras 3",
            f"{type(model).__name__}, a model of tf_keras (Keras 2)",
            "build it with keras, or use hvp.linearize_function(loss, model.trainable_variables)",
        )
    if not isinstance(model, keras.Model):
        raise InputError("a Keras model", type(model).__name__, "or use hvp.linearize_function")
    if not model.built:
        raise InputError(
            "a built model", f"{model.name!r} without variables", "call it once on a batch"
        )
    if not model.trainable_variables:
        raise InputError("a model with trainable variables", "none", "unfreeze a layer")


def _check_inputs(model: keras.Model, x: Any) -> None:
    """Raise DataError for x of other shapes than the model declares; not all models do."""
    declared = {tensor.name: tensor.shape for tensor in getattr(model, "inputs", None) or ()}
    given = [x[name] for name in declared if name in x] if isinstance(x, Mapping) else x
    given = tf.nest.flatten(given)
    if declared and len(given) != len(declared):
        raise DataError(
            f"an x for each of the inputs {', '.join(declared)}",
            f"{len(given)} of {len(declared)}",
            "give the x that belongs to this model, by these names",
        )
    for shape, tensor in zip(declared.values(), given, strict=bool(declared)):
        if not tf.TensorShape(shape[1:]).is_compatible_with(tensor.shape[1:]):
            raise DataError(
                f"x of shape {keras_losses.by_example(shape)}, as the model takes it",
                keras_losses.by_example(tensor.shape),
                "give the x that belongs to this model",
            )


def _notes(model: keras.Model, training: bool) -> Iterator[tuple[str, str]]:
    """The name of each layer that acts unlike in `fit`, and how it acts here."""
    for layer in model._flatten_layers():
        if training and _is_random(layer):
            yield layer.name, "draws at random once: every product keeps what its seed gives next"
        elif not training and _is_random(layer):
            yield layer.name, "drops nothing and adds no noise, as training=False"
        elif not training and isinstance(layer, keras.layers.BatchNormalization):
            yield layer.name, "uses its moving statistics, which are constants, as training=False"


def _is_random(layer: keras.Layer) -> bool:
    """Whether it drops entries or adds noise in training."""
    size = getattr(layer, "rate", 0) or getattr(layer, "stddev", 0)
    return bool(size) and hasattr(layer, "seed_generator")


def _mixes(layer: keras.Layer) -> bool:
    """Whether in training it makes the loss one of the batch as a whole."""
    return _is_random(layer) or isinstance(layer, keras.layers.BatchNormalization)


def _refuse_layers(model: keras.Model) -> None:
    for layer in model._flatten_layers():
        if getattr(layer, "quantization_mode", None) is not None:
            raise InputError(
                "layers that compute with floating-point numbers",
                f"{layer.name!r} quantised to {layer.quantization_mode}",
                "use the model from before it was quantised",
            )
        if getattr(layer, "synchronized", False):
            raise InputError(
                "BatchNormalization on one machine",
                f"{layer.name!r} with synchronized=True",
                "build it without this option",
            )


def _refuse_assigned(
    replaced: Sequence[tuple[keras.Variable, tf.Tensor]], scope: keras.StatelessScope
) -> None:
    for variable, param in replaced:
        if scope.get_current_value(variable) is not param:
            raise InputError(
                "a model that does not change its parameters when it is called",
                f"{variable.path} assigned by its layer",
                "pass training=False",
            )


def _refuse_own_step(model: keras.Model) -> None:
    if type(model).train_step is not keras.Model.train_step:
        raise InputError(
            "a model whose objective is its compiled loss",
            f"{type(model).__name__}.train_step overridden",
            "pass loss=, or use hvp.linearize_function",
        )


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


def _names(model: keras.Model) -> list[str]:
    """Variable paths without the name of the model, which Keras puts before some of them."""
    return unique([v.path.removeprefix(f"{model.name}/") for v in model.trainable_variables])
