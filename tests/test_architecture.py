"""The structure of the packages, held by reading the imports."""

import ast
import functools
import re
import subprocess
from pathlib import Path

import pytest

# package -> the packages and root modules of hvp that it may import.
MAY_IMPORT = {
    "errors": (),
    "sampling_error": (),
    "tables": (),
    "randomness": ("errors",),
    "progress": (),
    "operators": ("errors", "sampling_error", "randomness", "tables"),
    "certificate": ("operators", "errors"),
    "objective": ("errors",),
    "autodiff": ("errors",),
    "passes": ("autodiff",),
    "linearization": (
        "passes", "autodiff", "objective", "certificate", "operators", "errors", "sampling_error",
        "randomness", "tables",
    ),
    "linalg": ("operators", "errors", "sampling_error", "randomness", "progress", "tables"),
    "resuming": ("linalg", "operators", "errors", "sampling_error"),
    "comparison": (
        "resuming", "linalg", "certificate", "operators", "errors", "sampling_error", "randomness",
        "progress", "tables",
    ),
    "report": (
        "comparison", "linalg", "certificate", "errors", "sampling_error", "progress", "tables",
    ),
    "testing": (
        "comparison", "linalg", "certificate", "operators", "linearization", "errors", "randomness",
    ),
    "callbacks": ("linearization", "linalg", "operators", "errors", "randomness"),
    "cluster": (
        "linearization", "objective", "certificate", "operators", "errors", "sampling_error",
    ),
    "benchmark": ("objective", "errors", "__init__"),
    "examples": ("errors",),
    "cli": (
        "benchmark", "examples", "report", "comparison", "resuming", "linearization", "objective",
        "testing", "cluster", "errors", "__init__",
    ),
    "__init__": (),
    "__main__": ("cli",),
}  # fmt: skip
# Imports inside functions that go the other way, each for the reason given.
EXCEPTIONS = {
    ("comparison", "report"): "save writes the report, plot draws, repr takes its sentences",
    ("linalg", "report"): "Density.plot and Eigenpairs.plot draw",
}
# package from outside -> the only files that import it.
OUTSIDE = {
    "matplotlib": {
        "benchmark/picture",
        "report/density_panels",
        "report/eigenvalue_panels",
        "report/figure_style",
        "report/matplotlib_figure",
        "report/page_figures",
        "report/plots",
        "report/slice_panels",
        "report/track_figure",
    },
    "jinja2": {"report/html_page"},
    "markupsafe": {"report/html_page", "report/page_figures"},
    "rich": {"benchmark/table", "report/terminal", "report/terminal_tables"},
    "typer": {
        "cli/commands/__init__",
        "cli/commands/bench",
        "cli/commands/check",
        "cli/commands/compare",
        "cli/commands/track",
        "cli/options",
        "cli/process",
    },
    "click": set(),
    "ray": {
        "cluster/connection",
        "cluster/linearize",
        "cluster/local_loss",
        "cluster/worker",
        "cluster/workers",
    },
    "pytest": set(),
    "torch": set(),
    "jax": set(),
}
WITHOUT_TENSORFLOW = {
    "errors", "sampling_error", "tables", "randomness", "progress", "operators", "certificate",
    "linalg", "resuming", "comparison", "report",
}  # fmt: skip
# What Keras writes on tensors, its walk through all layers of a model, the losses that it collected
# in them, and which weights do not decay.
PRIVATE_KERAS = {
    "_losses", "_loss_ids", "_keras_mask", "_keras_logits", "_flatten_layers",
    "_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern",
}  # fmt: skip
NAMED_TUPLES = {"_replace"}

ROOT = Path(__file__).parents[1]
PATHS = {
    path.relative_to(ROOT / "hvp").with_suffix("").as_posix(): path
    for path in sorted((ROOT / "hvp").rglob("*.py"))
}
README = (ROOT / "hvp" / "README.md").read_text(encoding="utf-8")
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in PATHS.items()}


def package(name):
    """The package, or the module of the root, that a file or an import belongs to."""
    return name.replace(".", "/").split("/")[0]


def is_type_checking(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


@functools.cache
def imports(tree, *, typing=False):
    """The modules imported anywhere in a file: at run time, or for type checkers alone."""
    guarded = {id(n) for node in ast.walk(tree) if is_type_checking(node) for n in ast.walk(node)}
    found = set()
    for node in ast.walk(tree):
        if (id(node) in guarded) != typing:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def files(modules):
    """The files of hvp among imported names; a name of the package itself is `__init__`."""
    found = set()
    for module in modules:
        first, *path = module.split(".")
        if first != "hvp":
            continue
        stems = ["/".join(path[:count]) for count in range(len(path), 0, -1)]
        candidates = [name for stem in stems for name in (stem, f"{stem}/__init__")]
        candidates += ["__init__"]
        found.add(next(name for name in candidates if name in PATHS))
    return found


def outside(name):
    """The packages from elsewhere that a file imports at run time."""
    return {module.split(".")[0] for module in imports(TREES[name])} - {"hvp"}


def test_the_reader_of_imports_sees_them_all():
    tree = ast.parse(
        "import a.b\n"
        "from hvp import operators, __version__\n"
        "if TYPE_CHECKING:\n    from hvp.cli import app\n"
        "def f():\n    from hvp.linalg.trace import trace\n    import keras\n"
    )
    found = {"a.b", "hvp.operators", "hvp.__version__", "hvp.linalg.trace.trace", "keras"}
    assert imports(tree) == found
    assert imports(tree, typing=True) == {"hvp.cli.app"}
    assert files(imports(tree)) == {"operators", "linalg/trace", "__init__"}


def test_every_file_belongs_to_a_package_of_the_table():
    assert {package(name) for name in PATHS} == set(MAY_IMPORT)


def test_the_readme_of_the_packages_holds_the_same_table():
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \|([^|]*)\|$", README, re.MULTILINE)
    shown = {name: set(re.findall(r"`(\w+)`", allowed)) for name, allowed in rows}
    on_top = {"cli", "examples", "__init__", "__main__"}
    assert shown == {name: set(may) for name, may in MAY_IMPORT.items() if name not in on_top}


@pytest.mark.parametrize("typing", [False, True], ids=["run", "types"])
@pytest.mark.parametrize("name", PATHS)
def test_a_file_imports_only_what_its_package_may(name, typing):
    own = package(name)
    used = {package(other) for other in files(imports(TREES[name], typing=typing))} - {own}
    allowed = set(MAY_IMPORT[own]) | {other for this, other in EXCEPTIONS if this == own}
    assert used <= allowed


@pytest.mark.parametrize(("name", "other"), EXCEPTIONS)
def test_an_exception_is_imported_inside_a_function(name, other):
    for path, tree in TREES.items():
        if package(path) == name:
            statements = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
            top = imports(ast.Module(statements, []))
            assert other not in {package(file) for file in files(top)}


def test_no_file_imports_in_a_circle():
    below = {name: files(imports(tree)) - {name, "__init__"} for name, tree in TREES.items()}
    for this, other in EXCEPTIONS:
        for name in below:
            if package(name) == this:
                below[name] = {f for f in below[name] if package(f) != other}
    remaining = dict(below)
    while True:
        leaves = {name for name, used in remaining.items() if not used & set(remaining)}
        if not leaves:
            break
        remaining = {name: used for name, used in remaining.items() if name not in leaves}
    assert remaining == {}


@pytest.mark.parametrize("name", PATHS)
def test_imports_are_absolute_and_without_stars(name):
    every = imports(TREES[name]) | imports(TREES[name], typing=True)
    assert not [module for module in every if module.startswith(".") or module.endswith("*")]


@pytest.mark.parametrize(("module", "owners"), OUTSIDE.items())
def test_a_library_is_known_in_one_place(module, owners):
    assert {name for name in PATHS if module in outside(name)} == owners


@pytest.mark.parametrize("name", [n for n in PATHS if package(n) in WITHOUT_TENSORFLOW])
def test_what_needs_no_tensorflow_imports_none(name):
    assert not outside(name) & {"tensorflow", "keras"}


@pytest.mark.parametrize("name", sorted(set(PATHS) - {"autodiff/tensorflow_private"}))
def test_private_tensorflow_is_used_in_one_file(name):
    tree = TREES[name]
    modules = imports(tree) | imports(tree, typing=True)
    private = ("tensorflow.python", "tensorflow.core", "tensorflow.compiler", "keras.src")
    assert not [module for module in modules if module.startswith(private)]
    # Names with an underscore are the file's own: of self, of its classes, of its modules.
    own = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    own |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and is_set(n)}
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    }
    strings = {
        node.args[1].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("getattr", "hasattr")
        and isinstance(node.args[1], ast.Constant)
    }
    used |= {text for text in strings if text.startswith("_")}
    assert used - own - PRIVATE_KERAS - NAMED_TUPLES == set()


def is_set(node):
    return isinstance(node.ctx, ast.Store)


def test_the_file_of_private_tensorflow_names_the_versions_it_knows():
    assert "TensorFlow 2." in ast.get_docstring(TREES["autodiff/tensorflow_private"])


# The processes of a benchmark talk to each other over their standard streams.
STREAMS = {"report/terminal", "benchmark/process", "benchmark/worker"}


@pytest.mark.parametrize("name", [n for n in PATHS if package(n) != "cli" and n not in STREAMS])
def test_nothing_prints_below_the_command_line(name):
    calls = [n.func for n in ast.walk(TREES[name]) if isinstance(n, ast.Call)]
    assert "print" not in {ast.unparse(function).split(".")[-1] for function in calls}
    assert "sys" not in outside(name)


@pytest.mark.parametrize("word", ["util", "misc", "common", "helper", "base"])
def test_no_file_is_named_without_a_subject(word):
    assert not [path for path in (ROOT / "hvp").rglob("*.py") if word in path.stem.lower()]


def test_no_module_of_the_root_bears_the_name_of_a_public_function():
    import hvp

    top = {package(name) for name in PATHS} - {"callbacks", "cluster", "testing"}
    assert not top & set(hvp.__all__)


@pytest.mark.parametrize("name", PATHS)
def test_every_file_says_what_it_is(name):
    assert name == "__main__" or ast.get_docstring(TREES[name])


def test_assertions_are_never_the_users_errors():
    tree = TREES["linearization/linearize"]
    assert [n for n in ast.walk(tree) if isinstance(n, ast.Assert)] == []


def test_the_top_level_holds_only_what_was_agreed():
    listed = subprocess.run(
        ("git", "-C", str(ROOT), "ls-files"), capture_output=True, text=True, check=False
    )
    if listed.returncode == 0:
        top = {line.split("/")[0] for line in listed.stdout.splitlines()}
    else:  # an archive without its history
        top = {path.name for path in ROOT.iterdir() if not path.name.endswith(".egg-info")}
    named = {name for name in top if not name.startswith(".")}
    assert named <= {"pyproject.toml", "hvp", "tests", "bench", "README.md"}
    assert {"pyproject.toml", "hvp"} <= named
