"""transformers on one GPU; on a CPU, the reference that every backend is compared with.

*Batched schedule*: the shared starts of the prompts go through the model once; their cache then serves every
row of a batch. A row is the rest of one prompt followed by the tokens of all its options (each one's last left
out), arranged as a tree: a token sees its shared start, the rest of its prompt and what precedes it in its own
option. So an item costs one forward pass, whatever is asked of it, and only the positions that are read go
through the output layer. A response depends, in its last digits, on what it was batched with.

*Single schedule*: every option by itself, one whole prompt at a time, no cache, the model's own output. Slow,
and as close to the definition as it gets; ``float32`` unless asked otherwise.

Shapes are rounded up (lengths to multiples of 16, rows to powers of two) so that they repeat, and batches are
launched ahead of the ones that are read, so that tokenising goes on while the device computes.
"""

from __future__ import annotations

from persona_studies.errors import BackendError

try:
    from persona_studies.ask.backends.transformers.model import Transformers
except ImportError as missing:  # pragma: no cover - depends on the environment
    raise BackendError(
        "This model runs on transformers and torch, which are not installed here. Install the extra `gpu`: make gpu"
    ) from missing

__all__ = ["Transformers"]
