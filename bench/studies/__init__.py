"""Claims about curvature from the literature, tested on small networks with `hvp`.

    python -m bench.studies                      list the studies
    python -m bench.studies chain_rule           run one of them; it takes at most five minutes
    python -m bench.studies chain_rule --quick   run it in seconds, too small to test the claim

**What a study is.** A module of less than 100 lines that uses only the public names of `hvp`. Its
docstring names the paper, the section or figure, and the claim. Its `run` returns a `Study`: a
figure, remarks, and one row for each claim, with the published result, the result found here, and
whether the claim holds by a criterion in the code. Seeds are fixed.

**What a run writes.** It prints a table. It appends the same table, with date, machine, versions
and time, to `bench-results/studies/NAME.md`, and saves the figure as `NAME.png` (of a quick run
`NAME-quick`). Claims that do not hold are reported in the same form as those that do.

`README.md` in this directory contains the tables of full runs.
"""
