"""Checks an installed wheel, outside of the checkout: `installed.py core` or `installed.py report`.

`core` expects an environment without the extra `report`, `report` one with it.
"""

import importlib.util
import pkgutil
import subprocess
import sys
from pathlib import Path

EXTRA = ("jinja2", "matplotlib", "typer")


def core():
    import numpy as np
    import tensorflow as tf

    import hvp

    present = [name for name in EXTRA if importlib.util.find_spec(name)]
    assert not present, f"the extra is installed: {present}"
    lin = hvp.linearize_function(lambda w: tf.reduce_sum(w**4), np.ones(3))
    np.testing.assert_allclose(hvp.Hessian(lin) @ np.ones(3), np.full(3, 12.0))


def report():
    import hvp

    package = Path(hvp.__file__).parent
    schemas = ("report/compare.schema.json", "report/track.schema.json")
    for name in ("README.md", "LICENSE", "CHANGELOG.md", "py.typed", "__init__.pyi", *schemas):
        assert (package / name).exists(), name
    for module in pkgutil.walk_packages(hvp.__path__, "hvp."):
        needs_ray = module.name.startswith("hvp.cluster.")
        if module.name != "hvp.__main__" and not needs_ray:
            importlib.import_module(module.name)
    script = Path(sys.executable).with_name("hvp")
    subprocess.run((script, "compare", "--help"), check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    assert "site-packages" in importlib.util.find_spec("hvp").origin
    {"core": core, "report": report}[sys.argv[1]]()
