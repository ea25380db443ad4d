"""The spectrum of H at each checkpoint, in one picture: MODEL.keras DATA.npz WEIGHTS.h5 …"""

import sys

import keras
import matplotlib.pyplot as plt
import numpy as np

import hvp

model, data, *checkpoints = sys.argv[1:]
arrays = np.load(data)
lin = hvp.linearize(keras.models.load_model(model), (arrays["x"], arrays["y"]))
for path in checkpoints:
    with lin.at(path) as there:
        found = hvp.density(hvp.Hessian(there), num_probes=4, num_steps=60)
    grid = found.grid()
    plt.semilogy(grid, found.curve(grid)[0], label=path)
    print(f"{path}: {found.count_above(0.1)} eigenvalues above 0.1")
plt.xlabel("λ")
plt.ylabel("density")
plt.ylim(1e-6, None)
plt.legend()
plt.savefig("density.png")
