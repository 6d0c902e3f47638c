"""Chat templates: how a model marks the turns of a conversation.

A template that comes with a model may add text of its own: SmolLM2's inserts a default system prompt when
none is given, which would turn "no persona" into a persona. So prompts are put together here, from the turn marks
of the model's own template or of a named family, and a prompt without a persona contains no system text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from persona_studies.ask.chat.own import ODD, OwnTemplate, derive
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

    def without_beginning(self) -> ChatTemplate:
        """Return the template for a server that sets the begin token itself.

        >>> GEMMA.without_beginning().begin
        ''
        """
        return replace(self, begin="")


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


FAMILIES = {template.name: template for template in (CHATML, GEMMA, PLAIN)}
Chat = ChatTemplate | OwnTemplate


def detect(
    model_template: str | None, variables: Mapping[str, str] | None = None, *, wanted: str | None = None
) -> Chat:
    """Return how a model marks turns.

    Args:
        model_template: The model's own template (Jinja); None when it has none, and its prompts are plain text.
        variables: The model's special tokens: ``bos_token``, ``eos_token`` and so on.
        wanted: A family, or a file with a template, instead of the model's own.

    Returns:
        The named family that writes the same prompts, or the turn marks of the template itself.

    Raises:
        BackendError: an unknown family, no such file, or a template that cannot be used.
    """
    if wanted is not None and wanted in FAMILIES:
        return FAMILIES[wanted]
    if wanted is not None:
        path = Path(wanted).expanduser()
        if not path.is_file():
            raise BackendError(
                f"Unknown chat template {wanted!r}; known: {', '.join(FAMILIES)}, or a file with a Jinja template."
            )
        try:
            model_template = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BackendError(f"The chat template {path} cannot be read: {error}.") from error
    if not model_template:
        return PLAIN
    own = derive(model_template, variables)
    for family in (CHATML, GEMMA):
        probes = [
            (system, shared, user) for system in (None, "A", ODD) for shared in ("", ODD) for user in ("B", ODD)
        ]
        if all("".join(own.render(*probe)) == "".join(family.render(*probe)) for probe in probes):
            return family
    return own
