"""What hvp's products cost, measured beside everybody else's in the same run.

    python -m bench                      every problem, every peer that is installed
    python -m bench --quick              under three minutes, no peers needed
    python -m bench --problem convnet --peers pytorch,jax-linearize

**What is compared.** PyTorch double backward with the graph kept, curvlinops, hessian-eigenthings,
JAX `jvp(grad)`, JAX `linearize`, and naive TensorFlow, which is a `ForwardAccumulator` in a
`tf.function`; matfree for eigenvalues, PyHessian for densities. All have the same weights, data and
vectors, float32, all cores. A product is one vector, NumPy in and NumPy out. The peers come with
the extra `bench`; one that is not installed is reported as missing, never as beaten.

**How.** Each implementation lives in a process of its own, since thread pools and allocators of two
frameworks do not mix. The processes take turns, ours before every other (A B A C A B A C ...), and
a ratio is the median over the rounds of the ratio of neighbours. A turn repeats its call until it
lasts some hundredths of a second; all but one process wait on a pipe meanwhile, after a pause in
which their threads fall asleep. Where an
implementation has several straightforward forms (compiled or not, batched or looped), the faster
is taken and named. On two cores XLA's threads were seen to stall for some 80 ms in every other
call, in JAX alone on a quiet machine: an implementation whose median is far from its best turn is
named as unsteady, and where our best turn does not beat another's, the target says so. The report
also says so where other programs used the cores meanwhile; then the run is worth nothing.

**Who is right.** Before anything is timed, every product is compared with ours, and on dense nets
also with one written by hand in float64 NumPy. A peer that differs is shown as wrong, with its
error, and is no candidate for the fastest. Through LayerNormalization two are: naive TensorFlow,
since TensorFlow stops a gradient there, and curvlinops, since PyTorch 2.13's `jvp` of `jacrev` is
wrong there by some per cent in float64 too (its `jvp` of `grad` is right). They are timed and
flagged. Ours counts as confirmed only where an independent product agrees.

**The units.** Seconds; gradients of the same implementation, where that of hvp is the plain Keras
model's, compiled the best way (graph or XLA, whichever is faster, one flat vector out); the limit,
which is the multiply-adds that depend on v at the speed of the fastest matrix product of TensorFlow
and NumPy on shapes of the problem; the empty call, a compiled TensorFlow function that returns its
vector. `linearize` to the first product excludes imports and the building of the model. Memory is
the most that was resident above the loaded model, data and vector, in a fresh process that has
warmed up on a tiny problem, in vectors of P entries. The end to end time of ten eigenvalues is all
that comes after the imports, the building of the model included; the digits are read before. All
are to reach true errors of 10⁻³ of the norm, which are checked in float64; SciPy gets that as its
tolerance, matfree the fewest Lanczos steps that reach it.

**Densities.** 10 probes of 80 Lanczos steps, the products built before, by hvp, curvlinops,
hessian-eigenthings and PyHessian; ours is also measured in the time of its products alone, 80
blocks of 10 vectors. Each comes with a curve of 1001 points, and that is timed too, but for
PyHessian's, which has none. They differ otherwise: hvp multiplies all probes together and
reorthogonalises; curvlinops does not, and first looks for the ends of the spectrum with SciPy's
`eigsh`; the other two reorthogonalise a vector at a time, with random signs for probes. Before it
is timed the mean powers 1 to 4 of each density are held, to a hundredth, against vᵀHᵏv of its own
probes by hand in float64: with common probes there would be no noise to hide in, and nobody can be
given probes. PyHessian 0.1 calls `torch.eig`, which PyTorch has removed: it has failed, and is
never beaten, though the time it would take with that function put back is shown.

**What comes out.** Tables with the targets beside the figures, `bench.json` with versions and
machine, and `bench.png`, in `bench-results/`. Ratios of one run can be compared; seconds of two
runs cannot.
"""
