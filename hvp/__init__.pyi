"""The public names of `hvp` and where they are defined, for type checkers and `__init__.py`."""

from . import callbacks as callbacks
from . import cluster as cluster
from . import testing as testing
from .comparison.chain_rule import chain_rule as chain_rule
from .comparison.compare import compare as compare
from .comparison.loss_slice import LossSlice as LossSlice
from .comparison.loss_slice import loss_slice as loss_slice
from .comparison.results import Comparison as Comparison
from .comparison.track import track as track
from .comparison.track_results import Track as Track
from .errors import ConvergenceError as ConvergenceError
from .errors import InputError as InputError
from .linalg.density import Density as Density
from .linalg.diagonal import diagonal as diagonal
from .linalg.eigenpairs import Eigenpairs as Eigenpairs
from .linalg.eigsh import eigsh as eigsh
from .linalg.estimate import Estimate as Estimate
from .linalg.lanczos_quadrature import density as density
from .linalg.layer_shares import layer_shares as layer_shares
from .linalg.layer_traces import layer_traces as layer_traces
from .linalg.low_rank import low_rank as low_rank
from .linalg.noise_floor import Noise as Noise
from .linalg.noise_floor import noise_floor as noise_floor
from .linalg.solve import Solution as Solution
from .linalg.solve import solve as solve
from .linalg.spectral_sums import effective_dimension as effective_dimension
from .linalg.spectral_sums import log_determinant as log_determinant
from .linalg.trace import frobenius_norm as frobenius_norm
from .linalg.trace import squared_frobenius_norm as squared_frobenius_norm
from .linalg.trace import trace as trace
from .linearization.linearization import Linearization as Linearization
from .linearization.linearize import linearize as linearize
from .linearization.linearize import linearize_function as linearize_function
from .operators import EmpiricalFisher as EmpiricalFisher
from .operators import Fisher as Fisher
from .operators import GaussNewton as GaussNewton
from .operators import Hessian as Hessian
from .operators import Jacobian as Jacobian
from .operators import Residual as Residual
from .progress import Progress as Progress
from .report.json_document import load as load
from .resuming.resumable import resumable as resumable

__version__: str
