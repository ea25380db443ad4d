"""The spectrum of P⁻¹ᐟ²HP⁻¹ᐟ² beside that of H, P = diag G + δ: MODEL.keras DATA.npz δ"""

import sys

import keras
import numpy as np
import scipy.sparse
from scipy.sparse.linalg import aslinearoperator

import hvp

model, data, damping = sys.argv[1:]
arrays = np.load(data)
lin = hvp.linearize(keras.models.load_model(model), (arrays["x"], arrays["y"]))
H = hvp.Hessian(lin)
P = np.maximum(hvp.diagonal(hvp.GaussNewton(lin)).value, 0) + float(damping)
roots = aslinearoperator(scipy.sparse.diags_array((1 / np.sqrt(P)).astype(lin.dtype)))
for name, A in {"H": H, "preconditioned": roots @ H @ roots}.items():
    top = hvp.eigsh(A, 5)
    found = hvp.density(A, num_probes=4, num_steps=60, pairs=top)
    many = found.count_above(top.values[-1] / 100)
    print(f"{name}: the largest {np.round(top.values[::-1], 4)}; {many} above a hundredth of λmax")
