"""What JAX's leak check (``JAX_CHECK_TRACER_LEAKS=1``) finds in these tests through no fault of jaxvars.

`test_leak_check.py` shows with plain JAX that each kind is found there too, and that ordinary models pass.
"""

KEPT_BY_JAX = (
    "JAX's trace caches keep what a function closes over that outlives the trace, as a function of a module does"
)
ON_PURPOSE = "lets a tracer escape on purpose"
WRITES = "differentiating a scan that writes a Ref, JAX keeps the Ref until it is done"
OTHERWISE = "under the check JAX differentiates a jitted function by another way, and refuses it by another error"

# Part of a test's id -> why it is left out under the check.
LEFT_OUT = {
    "test_threads_have_frames_of_their_own": KEPT_BY_JAX,
    "in a branch of a loop": KEPT_BY_JAX,
    "test_refused_when_mapped": KEPT_BY_JAX,
    "test_our_grad_explains_what_jax_says_outside[closure in custom_vjp]": KEPT_BY_JAX,
    "[module jit": KEPT_BY_JAX,
    "[module checkpoint": KEPT_BY_JAX,
    **{f"test_gradient_beside_writes[{loop}": WRITES for loop in ("scan", "fori", "lax.map", "cond(scan)")},
    "test_dropout_in_dynamic_rnn[scan-grad]": WRITES,
    "assigned value of an ended trace": ON_PURPOSE,
    "test_our_grad_explains_what_jax_says_outside[write in a forward rule]": OTHERWISE,
    "test_a_variable_written_inside_has_no_gradient[jit inside]": OTHERWISE,
}


def left_out(test: str) -> str | None:
    """Why a test is left out under the check, or None."""
    return next((reason for part, reason in LEFT_OUT.items() if part in test), None)
