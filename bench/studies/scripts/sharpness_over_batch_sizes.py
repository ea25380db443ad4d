"""λmax of H of random batches, by their size, beside all data: MODEL.keras DATA.npz SIZE …"""

import sys

import keras
import numpy as np

import hvp

model, data, *sizes = sys.argv[1:]
arrays, model, rng = np.load(data), keras.models.load_model(model), np.random.default_rng(0)
x, y = arrays["x"], arrays["y"]
for size in map(int, sizes):
    chosen = [rng.choice(len(x), size, replace=False) for _ in range(8)]
    lins = (hvp.linearize(model, (x[rows], y[rows]), jit=False) for rows in chosen)
    found = [hvp.eigsh(hvp.Hessian(lin), 1, tol=1e-3).values[0] for lin in lins]
    stderr = np.std(found, ddof=1) / np.sqrt(len(found))
    print(f"batches of {size}: {np.mean(found):.4g} ± {stderr:.2g}, spread {np.std(found):.2g}")
lin = hvp.linearize(model, (x, y), batch_size=max(len(x) // 20, 1))
top = hvp.eigsh(hvp.Hessian(lin), 1)
forms = lin.batch_forms(top.vectors)  # the choice of the examples is one of many
print(f"all {len(x)}: {top.values[0]:.4g} ± {forms.stderr[0]:.2g} for another choice of examples")
