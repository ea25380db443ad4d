"""Benchmarks of one's own: a file for airspeed-velocity, and one for pytest-benchmark.

`lin.prepare` traces, compiles and chooses before anything is timed. `lin.cost` has the
multiply-adds and bytes of a product, which do not depend on the machine.
"""
