"""`import hvp`: the names, their signatures and docstrings, and what importing costs."""

import functools
import inspect
import itertools
import rlcompleter
import subprocess
import sys

import numpy as np
import pytest

import hvp

NAMES = {
    "Comparison",
    "ConvergenceError",
    "Density",
    "Eigenpairs",
    "EmpiricalFisher",
    "Estimate",
    "Fisher",
    "GaussNewton",
    "Hessian",
    "InputError",
    "Jacobian",
    "Linearization",
    "LossSlice",
    "Noise",
    "Progress",
    "Residual",
    "Solution",
    "Track",
    "chain_rule",
    "compare",
    "density",
    "diagonal",
    "effective_dimension",
    "eigsh",
    "frobenius_norm",
    "layer_shares",
    "layer_traces",
    "linearize",
    "linearize_function",
    "load",
    "log_determinant",
    "loss_slice",
    "low_rank",
    "noise_floor",
    "resumable",
    "solve",
    "squared_frobenius_norm",
    "trace",
    "track",
}


def test_the_names_are_those_promised():
    assert set(hvp.__all__) == NAMES | {"callbacks", "cluster", "testing"}
    assert set(dir(hvp)) == NAMES | {"callbacks", "cluster", "testing", "__version__"}
    assert sorted(hvp.__all__) == hvp.__all__


def test_tab_completion_offers_all_public_names_and_their_own():
    def offered(text):
        completer = rlcompleter.Completer({"hvp": hvp})
        found = map(functools.partial(completer.complete, text), itertools.count())
        return {name.rstrip("(.)") for name in itertools.takewhile(bool, found)}

    assert offered("hvp.") == {
        f"hvp.{name}" for name in NAMES | {"callbacks", "cluster", "testing"}
    }
    assert offered("hvp.__v") == {"hvp.__version__"}
    assert {"hvp.testing.check", "hvp.testing.closed_forms"} <= offered("hvp.testing.")


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_is_a_documented_class_or_function(name):
    value = getattr(hvp, name)
    assert inspect.isclass(value) or inspect.isfunction(value)
    assert value.__module__.startswith("hvp.")
    assert value.__name__ == name
    assert len(value.__doc__.strip().splitlines()[0]) > 20


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_has_an_example(name):
    assert ">>>" in getattr(hvp, name).__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        hvp.nonsense  # noqa: B018


def parameters(function):
    found = {"positional": [], "keyword": []}
    for name, parameter in inspect.signature(function).parameters.items():
        keyword = parameter.kind is inspect.Parameter.KEYWORD_ONLY
        found["keyword" if keyword else "positional"].append(name)
    return found


def test_linearize_has_the_arguments_agreed():
    assert parameters(hvp.linearize) == {
        "positional": ["model", "data", "loss"],
        "keyword": [
            "variables",
            "training",
            "class_weight",
            "dtype",
            "batch_size",
            "cache",
            "ad",
            "jit",
            "verify",
        ],
    }


def test_linearize_function_has_the_arguments_agreed():
    found = parameters(hvp.linearize_function)
    assert found["positional"] == ["loss", "params", "data"]
    assert found["keyword"][:2] == ["outputs", "reduction"]
    options = {"variables", "dtype", "batch_size", "cache", "ad", "jit", "verify"}
    assert set(found["keyword"][2:]) == options


@pytest.mark.parametrize("name", ["linearize", "linearize_function"])
def test_the_defaults_are_those_agreed(name):
    found = inspect.signature(getattr(hvp, name)).parameters
    for option in ("cache", "ad", "jit"):
        assert found[option].default == "auto"
    assert found["variables"].default is None


@pytest.mark.parametrize(
    ("function", "positional"),
    [
        (hvp.eigsh, ["A", "k"]),
        (hvp.compare, ["lin", "k"]),
        (hvp.track, ["lin", "points"]),
        (hvp.chain_rule, ["lin", "v"]),
        (hvp.trace, ["A"]),
        (hvp.diagonal, ["A"]),
        (hvp.frobenius_norm, ["A"]),
        (hvp.squared_frobenius_norm, ["A"]),
        (hvp.layer_traces, ["A", "lin"]),
        (hvp.Hessian, ["lin"]),
        (hvp.GaussNewton, ["lin"]),
        (hvp.Residual, ["lin"]),
        (hvp.Jacobian, ["lin"]),
    ],
)
def test_options_are_keyword_only(function, positional):
    assert parameters(function)["positional"] == positional


def test_a_linearization_has_what_was_promised():
    methods = ("loss", "gradient", "hvp", "gnvp", "residual_vp", "jvp", "vjp", "block", "blocks")
    for name in ("theta", *methods):
        assert inspect.getdoc(getattr(hvp.Linearization, name))
    lin = hvp.linearize_function(lambda w: w[0] ** 2, np.ones(2))
    for name in ("size", "dtype", "names", "num_examples", "findings"):
        assert hasattr(lin, name)


def test_the_checks_need_no_import_of_their_own():
    program = "import hvp; print(hvp.testing.check.__name__, hvp.__version__)"
    done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"check {hvp.__version__}\n", "")


@pytest.mark.sweep
def test_the_closed_forms_need_no_import_of_their_own():
    program = "import hvp; print(hvp.testing.closed_forms.quadratic.__name__)"
    done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True)
    assert done.stdout == "quadratic\n"


@pytest.mark.sweep
def test_the_callbacks_need_no_import_of_their_own():
    program = "import hvp; print(hvp.callbacks.Curvature.__name__)"
    done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True)
    assert done.stdout == "Curvature\n"


def test_importing_the_package_and_its_numpy_modules_does_not_import_tensorflow():
    program = (
        "import sys, hvp; assert dir(hvp); light = set(sys.modules); "
        "from hvp import eigsh, Hessian, InputError, chain_rule, compare, testing; "
        "print(light & {'tensorflow', 'keras', 'scipy', 'numpy', 'matplotlib'}, "
        "{'tensorflow', 'keras'} & set(sys.modules))"
    )
    done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set() set()\n", "")


REPORT_PACKAGES = ("jinja2", "markupsafe", "matplotlib", "rich", "typer")


def test_comparing_imports_nothing_that_only_the_report_needs():
    program = (
        "import sys, hvp; from hvp import compare, Comparison; import hvp.cli; "
        f"print(set({REPORT_PACKAGES}) & set(sys.modules))"
    )
    done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")


@pytest.mark.parametrize("package", ["jinja2", "markupsafe", "matplotlib"])
def test_saving_without_the_packages_of_the_report_says_so_in_one_line(package):
    program = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "import hvp\n"
        "comparison = object.__new__(hvp.Comparison)\n"
        "try:\n    comparison.save('.')\n"
        "except hvp.InputError as error:\n    print(error)"
    )
    done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True)
    expected = (
        "expected the packages of the extra 'report', "
        f"got no module {package}; pip install 'hvp[report]'\n"
    )
    assert (done.stdout, done.stderr) == (expected, "")
