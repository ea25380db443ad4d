"""A study that is killed goes on with the part that it was at."""

import numpy as np
import pytest

from bench import command_line
from bench.studies import study


def test_work_by_other_sources_is_not_used(tmp_path, monkeypatch, capsys):
    def run(value):
        with command_line.unfinished(tmp_path / "a.md", {}, (), is_fresh=False) as journal:
            with study.kept_in(journal):
                found = study.kept("part", lambda: value)
            if value == 1:
                raise KeyboardInterrupt
            return found

    for expected in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            run(1)
        if expected == 2:
            monkeypatch.setattr(command_line, "_sources", lambda: "others")
        assert run(2) == expected
    assert "not used" in capsys.readouterr().err
    assert study.kept("part", lambda: np.pi) == np.pi
