"""Traces of H, G and R by layer, as a table and a CSV file: MODEL.keras DATA.npz"""

import csv
import sys

import keras
import numpy as np

import hvp

model, data = sys.argv[1:]
arrays = np.load(data)
lin = hvp.linearize(keras.models.load_model(model), (arrays["x"], arrays["y"]))
scale = hvp.eigsh(hvp.Hessian(lin), 1, which="LM", tol=1e-2).scale
rows = []
for operator in (hvp.Hessian, hvp.GaussNewton, hvp.Residual):
    found = hvp.layer_traces(operator(lin), lin, scale=scale)
    print(operator.__name__, found, sep="\n")
    rows += [{"matrix": operator.letter, **row} for row in found.rows()]
with open("traces.csv", "w", newline="") as file:
    writer = csv.DictWriter(file, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)
