"""Running the notebooks, and comparing what they make with the reference.

Other wings, studies and notebooks import the modules named here; the rest is the wing's own.
"""

__all__ = [
    "changes",
    "checkout",
    "folders",
    "grid",
    "imports",
    "notebooks",
    "pages",
    "processes",
    "reads",
    "ready",
    "runs",
    "sweep",
    "verify",
]
