"""What the responses say: scores, statistics, gates, verdicts, figures and tables.

Other wings, studies and notebooks import the modules named here; the rest is the wing's own.
"""

__all__ = [
    "alt",
    "claims",
    "conclusions",
    "contrasts",
    "families",
    "figures",
    "gates",
    "multiple_choice",
    "numbers",
    "reasons",
    "scoring",
    "stats",
    "tables",
    "verdicts",
]
