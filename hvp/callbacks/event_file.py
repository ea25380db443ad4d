"""Scalars in the event files that TensorBoard reads, written without TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf


class EventFile:
    """Writes numbers by step, with ``tf.summary.write``.

    ``tf.summary.scalar`` needs the package tensorboard, for these metadata alone.
    """

    def __init__(self, directory: str | Path):
        self._writer = tf.summary.create_file_writer(str(directory))
        self._metadata = tf.compat.v1.SummaryMetadata(data_class="DATA_CLASS_SCALAR")
        self._metadata.plugin_data.plugin_name = "scalars"

    def write(self, numbers: Mapping[str, float], step: int) -> None:
        """Add a point to the curve of each name."""
        with self._writer.as_default():
            for name, number in numbers.items():
                value = tf.constant(number, tf.float32)
                tf.summary.write(f"curvature/{name}", value, step, metadata=self._metadata)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
