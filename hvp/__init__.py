"""hvp: matrix-free curvature of TensorFlow and Keras models.

H = ∇²L = G + R, with G = JᵀΛJ the Gauss-Newton matrix and R the network's second derivatives:
products with all three, exactly, and their spectra by SciPy.

The public names are listed in ``__init__.pyi`` and imported when first used (Scientific Python
SPEC 1), so that ``hvp --help`` does not wait for TensorFlow.
"""

import lazy_loader

__version__ = "0.2.0"

__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __dir__() -> list[str]:
    """The public names, for tab completion too."""
    return sorted((*__all__, "__version__"))
