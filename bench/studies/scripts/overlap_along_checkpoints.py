"""How much of H's top space lies in G's, at each checkpoint: MODEL.keras DATA.npz K WEIGHTS.h5 …"""

import sys

import keras
import numpy as np

import hvp

model, data, k, *checkpoints = sys.argv[1:]
arrays = np.load(data)
lin = hvp.linearize(keras.models.load_model(model), (arrays["x"], arrays["y"]))
H = G = None
for path in checkpoints:
    with lin.at(path) as there:  # each starts from the vectors of the checkpoint before
        H = hvp.eigsh(hvp.Hessian(there), int(k), start=H)
        G = hvp.eigsh(hvp.GaussNewton(there), int(k), start=G)
    overlap = np.sum((H.vectors.T @ G.vectors) ** 2) / int(k)
    tops = f"λmax of H {H.values[-1]:.4g}, of G {G.values[-1]:.4g}"
    print(f"{path}: {tops}, overlap of the top {k} {overlap:.1%}")
