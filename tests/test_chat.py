import pytest

from persona_studies.ask.chat import CHATML, GEMMA, PLAIN, ChatTemplate, detect
from persona_studies.errors import BackendError


@pytest.mark.parametrize("chat", [CHATML, GEMMA, PLAIN])
def test_no_persona_contains_no_system_text(chat: ChatTemplate) -> None:
    head, tail = chat.render(None, "", "Hello.")
    assert "system" not in head + tail
    assert (head + tail).count("Hello.") == 1
    with_persona = "".join(chat.render("You are a baker.", "", "Hello."))
    assert with_persona.replace("You are a baker.", "").replace("<|im_start|>system\n<|im_end|>\n", "").replace(
        "\n\n", ""
    ) == (head + tail).replace("\n\n", "")


def test_what_items_share_is_in_the_prefix() -> None:
    head, tail = CHATML.render("You are a baker.", "Rate this: ", "Cats purr.")
    assert head.endswith("<|im_start|>user\nRate this: ")
    assert tail == "Cats purr.<|im_end|>\n<|im_start|>assistant\n"


def test_a_family_without_a_system_role_opens_the_user_turn_with_it() -> None:
    head, tail = GEMMA.render("You are a baker.", "", "Hello.")
    assert head + tail == (
        "<bos><start_of_turn>user\nYou are a baker.\n\nHello.<end_of_turn>\n<start_of_turn>model\n"
    )


def test_families_are_recognised_and_unknown_ones_refused() -> None:
    assert detect("{% for m in messages %}<|im_start|>...") is CHATML
    assert detect("<start_of_turn>") is GEMMA
    assert detect(None) is PLAIN
    with pytest.raises(BackendError, match="no known family"):
        detect("[INST] {{ x }} [/INST]")
