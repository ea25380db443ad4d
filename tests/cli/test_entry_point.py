"""The entry point: help, version, and what is said before TensorFlow is imported."""

import shlex
import subprocess
import sys

import numpy as np
import pytest
from support.command_line import MODULE, SCRIPT, environment, files, run, with_arrays

import hvp


@pytest.mark.parametrize("word", ["version", "--version"])
def test_the_version_is_printed(word):
    result = run(word)
    assert (result.exit_code, result.stdout) == (0, f"{hvp.__version__}\n")


def test_without_a_command_help_is_printed():
    result = run()
    assert (result.exit_code, result.stderr) == (2, "")
    assert {"version", "compare", "check"} <= set(result.stdout.split())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("foo",), "no such command 'foo'; see hvp --help"),
        (("compare", "--modle", "x"), "no such option: --modle"),
        (("check", "x"), "got unexpected extra argument"),
        (("compare", "--model"), "option '--model' requires an argument; see hvp"),
        (("compare", "-k", "ten"), "'-k': expected a whole number, got 'ten'; see hvp compare"),
        (("check", "--seed", "1.5"), "'--seed': expected a whole number, got '1.5'; see hvp check"),
        (("compare", "--out", ""), "'--out': expected a path, got ''; see hvp compare --help"),
    ],
)
def test_a_line_that_no_command_takes_is_answered_by_one_line(here, words, line):
    result = run(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("hvp: ")
    assert line in result.stderr
    assert result.stderr.endswith("--help\n")
    assert result.stderr.count("\n") == 1
    assert files(here) == []


@pytest.mark.parametrize(
    ("output", "code", "line"),
    [
        (">/dev/full", 1, "hvp: standard output: No space left on device\n"),
        (">&-", 1, "hvp: standard output: Bad file descriptor\n"),
        (">&- 2>&-", 1, ""),
    ],
)
def test_an_output_that_takes_nothing_is_one_line(output, code, line):
    command = f"exec {shlex.join(MODULE)} version {output}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", line)


@pytest.mark.parametrize(
    ("words", "shown"), [(("compare", "--help"), "--activation"), (("--version",), hvp.__version__)]
)
def test_help_and_version_import_neither_tensorflow_nor_what_numbers_need(words, shown):
    command = (sys.executable, "-X", "importtime", "-m", "hvp", *words)
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True)
    assert shown in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {"hvp.cli", "typer"} <= imported
    assert not imported & {"tensorflow", "keras", "scipy", "matplotlib", "numpy"}


def test_bad_input_is_one_line_without_tensorflows_chatter(inputs, here):
    with_arrays(y=np.full(12, 9))
    command = (SCRIPT, "compare", *inputs, "--out", "out", "--quiet")
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("hvp: expected labels from 0 to 2")
    assert done.stderr.count("\n") == 1
    assert not (here / "out").exists()


@pytest.mark.parametrize("command", ["compare", "check"])
def test_a_wrong_file_is_reported_before_tensorflow_is_imported(inputs, here, command):
    typed = ["hvp", command, "--model", "net.keras", "--data", "none.npz"]
    program = (
        f"import sys; sys.argv = {typed}\n"
        "from hvp.cli import main\n"
        "try: main()\n"
        "finally: assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True)
    line = "hvp: expected an .npz file, got no file 'none.npz'; check the path\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


@pytest.mark.sweep
def test_the_entry_point_says_which_package_is_missing(here):
    for package in ("typer", "rich", "matplotlib"):
        program = (
            f"import sys; sys.modules[{package!r}] = None; sys.argv = ['hvp', 'compare', '-q']; "
            "from hvp.cli import main; main()"
        )
        done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True)
        line = (
            "hvp: expected the packages of the extra 'report', "
            f"got no module {package}; pip install 'hvp[report]'\n"
        )
        assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
    assert files(here) == []
