"""What is asked: protocols, parameters, plans, sources and banks of items.

Other wings, studies and notebooks import the modules named here; the rest is the wing's own.
"""

__all__ = ["banks", "conditions", "facts", "multiple_choice", "parameters", "plan", "protocol", "sources"]
