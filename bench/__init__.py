"""Measure the cost of the products of hvp and of other libraries, in turns, in one run.

    python -m bench                      every problem, every peer that is installed
    python -m bench --quick              under three minutes, no peers needed
    python -m bench --problem convnet --peers pytorch,jax-linearize
    python -m bench --against PATH       these products against those of another checkout of hvp

`README.md` in this directory describes what is measured, how, and the other libraries.
"""
