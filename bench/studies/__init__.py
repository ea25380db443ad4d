"""Claims about curvature from the literature, tried on small networks with `hvp`.

    python -m bench.studies                      which studies there are
    python -m bench.studies chain_rule           one of them, in about five minutes at most
    python -m bench.studies chain_rule --quick   the same in seconds, at sizes that show nothing

**What a study is.** A module here of under 100 lines, as a user of `hvp` would write it with the
public names alone. Its docstring names the paper, the section or figure, and the claim; its `run`
gives a `Study`: rows of claim, what is published, what was found here, and whether the claim holds
by a criterion that stands in the code, a figure, and remarks. Seeds are fixed.

**What comes out.** A table on the screen; the same table, with date, machine, versions and time,
appended to `bench-results/studies/NAME.md`, and the figure in `NAME.png` beside it (of a quick run
`NAME-quick`). A claim that does not hold is reported with its numbers like one that does.

`README.md` beside this file holds the tables of full runs.
"""
