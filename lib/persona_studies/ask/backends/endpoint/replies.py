"""What of a text that a server sent is the model's reply.

Servers that do not know a model's marks send them along: its thoughts with a mark at both ends or behind them
only, the channels of gpt-oss, a mark that opens the reply, and what the model wrote behind the end of its turn.
"""

from __future__ import annotations

import re

_THOUGHT = r"(?:seed:)?(?:think|thinking|thoughts?|reasoning)"
OPENS = re.compile(
    rf"<{_THOUGHT}>|<\|{_THOUGHT}\|>|\[THINK\]|◁think▷|<\|begin_of_thought\|>|<\|START_THINKING\|>", re.I
)
CLOSES = re.compile(
    rf"</{_THOUGHT}>|<\|?/{_THOUGHT}\|>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>|<\|END_THINKING\|>", re.I
)
CHANNEL = re.compile(r"<\|channel\|>(\w+)[^<]*<\|message\|>")
# The same where the server leaves the marks out and not what stands in them.
BARE_CHANNEL = re.compile(r"\Aanalysis(?=[A-Z]).*?(assistantfinal|\Z)", re.S)
BEGINNING = re.compile(
    r"\A(?:\s*(?:<s>|<\|begin_of_text\|>|<\|im_start\|>assistant\b|<start_of_turn>model\b|<\|assistant\|>|\[\|assistant\|\]"
    r"|<\|start_header_id\|>assistant<\|end_header_id\|>|<\|start_of_role\|>assistant<\|end_of_role\|>"
    r"|<\|START_OF_TURN_TOKEN\|>|<\|CHATBOT_TOKEN\|>|<\|START_RESPONSE\|>"
    # What is left of a mark of Llama 3 where special tokens are left out.
    r"|assistant\n\n)\s*)+"
)
END = re.compile(r"<[|｜][^<>|｜\s]{1,40}[|｜]>|\[\|endofturn\|\]|<end_of_turn>|</s>|<eos>")
# Nobody sees these, and a letter behind one of them is not the first character.
UNSEEN = "\ufeff\u200b\u200e\u200f\u2060"


def reply(text: str) -> tuple[str, bool, bool]:
    """Return the reply, whether thoughts were left out, and whether the text goes on behind the reply's end.

    >>> reply("<think>Hm.</think>Yes."), reply("Hm.</think>Yes."), reply("<think>Hm.")
    (('Yes.', True, False), ('Yes.', True, False), ('', True, False))
    >>> reply("\\ufeffYes.<|im_end|>\\n<|im_start|>user")
    ('Yes.', False, True)
    """
    text = text.lstrip(UNSEEN)
    spoken = _without_thoughts(_last_channel(text))
    thought = spoken != text
    spoken = BEGINNING.sub("", spoken)
    if end := END.search(spoken):
        return spoken[: end.start()], thought, True
    return spoken, thought, False


def _last_channel(text: str) -> str:
    """Return what stands in the channel of answers; all other channels hold thoughts."""
    if channels := list(CHANNEL.finditer(text)):
        return text[channels[-1].end() :] if channels[-1][1] == "final" else ""
    return BARE_CHANNEL.sub("", text)


def _without_thoughts(text: str) -> str:
    """Leave out every thought. Many templates open one in the prompt, so the first may only have an end."""
    while closed := CLOSES.search(text):
        opened = OPENS.search(text, 0, closed.start())
        text = text[: opened.start() if opened else 0] + text[closed.end() :].lstrip()
    return text[: opened.start()] if (opened := OPENS.search(text)) else text
