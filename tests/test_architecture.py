"""The house plan, held by reading the imports."""

import ast
import subprocess
from pathlib import Path

import pytest

FLOORS = [
    [
        "errors",
        "document",
        "estimate",
        "palette",
        "sampling",
        "threads",
        "linearity",
        "substitutes",
        "likelihood",
    ],
    [
        "params",
        "objective",
        "losses",
        "replaying",
        "data",
        "models",
        "arrays",
        "ends",
        "counting",
        "digits",
    ],
    ["graph", "forward", "fitting", "sketches", "lanczos", "reading"],
    [
        "autodiff",
        "densities",
        "moments",
        "audit",
        "folding",
        "split",
        "precision",
        "eigenpairs",
        "laws",
        "exchangeable",
        "layerwise",
        "noise",
    ],
    ["quadrature", "programs", "fusing", "columns", "affine", "compiled", "traces", "functionals"],
    ["probes", "linear_map", "spectrum", "curves", "drawing"],
    ["tracing", "frontiers", "choosing", "charts", "sampled"],
    ["snapshot", "report"],
    ["products", "forecast"],
    ["summing"],
    ["linearization", "operators", "plot", "screen"],
    ["doors", "forms", "checking"],
    ["comparison", "closed_forms"],
    ["cli", "testing", "__init__"],
    ["__main__"],
]
FLOOR = {name: level for level, floor in enumerate(FLOORS) for name in floor}
NUMPY_WING = [
    "counting",
    "eigenpairs",
    "noise",
    "estimate",
    "sampling",
    "lanczos",
    "densities",
    "quadrature",
    "exchangeable",
    "functionals",
    "layerwise",
    "sketches",
    "threads",
    "traces",
    "operators",
    "laws",
    "checking",
    "forms",
    "comparison",
    "document",
    "spectrum",
    "palette",
    "digits",
    "reading",
    "curves",
    "charts",
    "drawing",
    "sampled",
    "report",
    "plot",
    "screen",
]
# What Keras writes on tensors, and its walk through all layers of a model.
PRIVATE_KERAS = {"_keras_mask", "_keras_logits", "_flatten_layers"}
NAMED_TUPLES = {"_replace"}

ROOT = Path(__file__).parents[1]
SOURCES = {path.stem: path for path in sorted((ROOT / "hvp").glob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}


def is_type_checking(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


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
    return found


def rooms(modules):
    """The files of hvp among imported names; a name of the package itself is `__init__`."""
    inner = [name.split(".")[1:] for name in modules if name.split(".")[0] == "hvp"]
    return {(*path, "__init__")[0] if (*path, "")[0] in SOURCES else "__init__" for path in inner}


def packages(name):
    return {module.split(".")[0] for module in imports(TREES[name])}


def test_the_reader_of_imports_sees_them_all():
    tree = ast.parse(
        "import a.b\n"
        "from hvp import plot, __version__\n"
        "if TYPE_CHECKING:\n    from hvp.cli import app\n"
        "def f():\n    from hvp.data import load\n    import keras\n"
    )
    assert imports(tree) == {"a.b", "hvp.plot", "hvp.__version__", "hvp.data.load", "keras"}
    assert imports(tree, typing=True) == {"hvp.cli.app"}
    assert rooms(imports(tree)) == {"plot", "data", "__init__"}


def test_every_file_has_a_floor():
    assert set(SOURCES) == set(FLOOR)


def test_every_file_lies_in_the_package_itself():
    assert sorted(ROOT.glob("hvp/**/*.py")) == sorted(SOURCES.values())


@pytest.mark.parametrize("name", SOURCES)
def test_a_file_imports_only_from_lower_floors(name):
    higher = {room for room in rooms(imports(TREES[name])) if FLOOR[room] >= FLOOR[name]}
    # The version is a constant of the package, which every import of a module of it runs first.
    allowed = {"__init__"} if name == "cli" else set()
    assert higher <= allowed


@pytest.mark.parametrize("name", sorted(set(SOURCES) - {"__init__"}))
def test_types_alone_lead_upwards_from_the_screen_only(name):
    higher = {r for r in rooms(imports(TREES[name], typing=True)) if FLOOR[r] >= FLOOR[name]}
    assert higher <= ({"checking", "comparison", "spectrum"} if name == "screen" else set())


def test_nothing_imports_the_command_line_but_its_door():
    importers = {name for name, tree in TREES.items() if "cli" in rooms(imports(tree))}
    assert importers == {"__main__"}


@pytest.mark.parametrize("name", SOURCES)
def test_imports_are_absolute_and_without_stars(name):
    every = imports(TREES[name]) | imports(TREES[name], typing=True)
    assert not [module for module in every if module.startswith(".") or module.endswith("*")]


@pytest.mark.parametrize(
    ("package", "owners"),
    [
        ("matplotlib", {"plot"}),
        ("plotly", {"charts", "drawing"}),
        ("jinja2", {"report"}),
        ("markupsafe", {"report"}),
        ("typer", {"cli"}),
        ("rich", {"screen"}),
        ("click", set()),
        ("ray", set()),
        ("pytest", set()),
        ("torch", set()),
        ("jax", set()),
    ],
)
def test_a_package_is_known_in_one_place(package, owners):
    assert {name for name in SOURCES if package in packages(name)} == owners


@pytest.mark.parametrize("name", NUMPY_WING)
def test_the_numpy_wing_knows_no_tensorflow(name):
    assert not packages(name) & {"tensorflow", "keras"}
    below = {name}
    while True:
        reached = below | {r for room in below for r in rooms(imports(TREES[room]))}
        if reached == below:
            break
        below = reached
    assert not {room for room in below if packages(room) & {"tensorflow", "keras"}}


@pytest.mark.parametrize("name", sorted(set(SOURCES) - {"graph"}))
def test_only_graph_touches_private_tensorflow(name):
    tree = TREES[name]
    modules = imports(tree) | imports(tree, typing=True)
    private = ("tensorflow.python", "tensorflow.core", "tensorflow.compiler", "keras.src")
    assert not [module for module in modules if module.startswith(private)]
    # Names with an underscore are the file's own: of self, of its classes, of its modules.
    own = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    own |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and is_set(n)}
    own |= {attr for room in rooms(modules) - {"graph"} for attr in attributes_set(TREES[room])}
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


def attributes_set(tree):
    return {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and is_set(n)}


def test_graph_says_which_versions_of_tensorflow_it_knows():
    assert "TensorFlow 2." in ast.get_docstring(TREES["graph"])


@pytest.mark.parametrize("name", sorted(set(SOURCES) - {"cli", "screen"}))
def test_nothing_prints_below_the_command_line(name):
    calls = [n.func for n in ast.walk(TREES[name]) if isinstance(n, ast.Call)]
    assert "print" not in {ast.unparse(function).split(".")[-1] for function in calls}
    assert "sys" not in packages(name) or name == "__init__"


@pytest.mark.parametrize("word", ["utils", "misc", "common", "helpers", "base"])
def test_no_file_is_named_without_a_subject(word):
    assert not [path for path in (ROOT / "hvp").rglob("*") if word in path.stem.lower()]


@pytest.mark.parametrize("name", SOURCES)
def test_every_file_says_what_it_is(name):
    assert name == "__main__" or ast.get_docstring(TREES[name])


def test_assertions_are_never_the_users_errors():
    public = [n for n in ast.walk(TREES["doors"]) if isinstance(n, ast.Assert)]
    assert public == []


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
