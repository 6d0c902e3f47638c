"""Chat templates, rendered explicitly.

A template that comes with a model may add text of its own: SmolLM2's inserts a default system prompt when
none is given, which would turn "no persona" into a persona. So prompts are rendered here, and a prompt
without a system turn contains none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from persona_studies.errors import BackendError


@dataclass(frozen=True)
class ChatTemplate:
    """How one family of models marks the turns of a conversation.

    Attributes:
        name: Name of the family.
        begin: Text before the first turn.
        system: System turn with ``{}`` for its text; None when the family has no system role, and the
            system text then opens the user turn.
        user_open: Start of the user turn.
        user_close: End of the user turn and start of the model's.
        stop: Markers that end the model's turn.
    """

    name: str
    begin: str
    system: str | None
    user_open: str
    user_close: str
    stop: tuple[str, ...]

    def render(self, system: str | None, shared: str, user: str) -> tuple[str, str]:
        """Return ``(prefix, suffix)``: what all items of a condition share, and the rest of the prompt."""
        prefix = self.begin
        opening = self.user_open
        if system is not None:
            if self.system is not None:
                prefix += self.system.replace("{}", system)
            else:
                opening += system + "\n\n"
        if shared:
            return prefix + opening + shared, user + self.user_close
        if self.system is None:
            return prefix + opening, user + self.user_close
        return prefix, opening + user + self.user_close

    def beginning(self, marker: str | None) -> ChatTemplate:
        """Return the template for a model that expects ``marker`` before everything else.

        >>> PLAIN.beginning("<s>").begin, GEMMA.beginning("<bos>").begin, PLAIN.beginning(None).begin
        ('<s>', '<bos>', '')
        """
        return self if not marker or self.begin.startswith(marker) else replace(self, begin=marker + self.begin)


CHATML = ChatTemplate(
    name="chatml",
    begin="",
    system="<|im_start|>system\n{}<|im_end|>\n",
    user_open="<|im_start|>user\n",
    user_close="<|im_end|>\n<|im_start|>assistant\n",
    stop=("<|im_end|>",),
)
GEMMA = ChatTemplate(
    name="gemma",
    begin="<bos>",
    system=None,
    user_open="<start_of_turn>user\n",
    user_close="<end_of_turn>\n<start_of_turn>model\n",
    stop=("<end_of_turn>",),
)
# For models that know no turns: who speaks is written out.
PLAIN = ChatTemplate(
    name="plain", begin="", system="{}\n\n", user_open="User: ", user_close="\nAssistant: ", stop=("\n",)
)


def named(name: str) -> ChatTemplate:
    """Return the template of a family.

    Raises:
        BackendError: no known family has that name.

    >>> named("gemma").system is None
    True
    """
    known = {template.name: template for template in (CHATML, GEMMA, PLAIN)}
    if name not in known:
        raise BackendError(f"Unknown chat template {name!r}; known: {', '.join(known)}.")
    return known[name]


def detect(model_template: str | None) -> ChatTemplate:
    """Return the family that a model's own template (Jinja, from its metadata) belongs to.

    Raises:
        BackendError: the template is of no known family.
    """
    if not model_template:
        return PLAIN
    if "<|im_start|>" in model_template:
        return CHATML
    if "<start_of_turn>" in model_template:
        return GEMMA
    raise BackendError(
        "The model's chat template is of no known family (chatml, gemma, plain); add it to"
        " persona_studies.ask.chat."
    )
