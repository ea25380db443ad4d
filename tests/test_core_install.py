"""Without the extras `report` and `ray`: the products, the spectra and their comparison run."""

import subprocess
import sys

PROGRAM = """
import sys
for name in ("jinja2", "matplotlib", "ray", "typer"):
    sys.modules[name] = None
import keras, numpy as np
import hvp, hvp.testing
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, "tanh"), keras.layers.Dense(1)])
lin = hvp.linearize(model, (np.eye(2), np.ones((2, 1))), "mse")
v = np.ones(lin.size)
assert np.allclose(lin.hvp(v), lin.gnvp(v) + lin.residual_vp(v), atol=1e-5)
assert hvp.eigsh(hvp.Hessian(lin), 1).values.shape == (1,)
assert hvp.chain_rule(lin)
comparison = hvp.compare(lin, 1, num_probes=2, num_steps=4)
assert set(comparison.parts)
assert "The eigenvalues of H range from" in repr(comparison)
try:
    hvp.cluster.linearize(model, (np.eye(2), np.ones((2, 1))), "mse", num_workers=1)
except hvp.InputError as error:
    assert "pip install 'hvp[ray]'" in str(error)
else:
    raise AssertionError("Ray was not missed")
"""


def test_it_computes_everything_but_draws_nothing():
    done = subprocess.run((sys.executable, "-c", PROGRAM), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
