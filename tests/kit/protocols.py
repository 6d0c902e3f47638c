"""A small protocol that is valid."""

from __future__ import annotations

GOOD = """
study = "toy"
title = "A toy"
question = "Does it?"
version = 1
stopping_rule = "all of it"
exclusions = []

[paper]
authors = "A"
title = "T"
year = 2026
venue = "V"
url = "U"

[conditions.none]
role = "none"
purpose = "no system turn"

[measures.agree]
kind = "cloze"
purpose = "agreement"
options = ["Yes.", "No."]
gate = { min_option_mass = 0.05 }

[[measures.agree.templates]]
template = "plain"
role = "unattributed"
user = "{Text}."

[[measures.agree.templates]]
template = "think"
role = "asserted"
user = "I think that {text}."

[families.main]
purpose = "the main one"
size = 2
undefined = "one"
hypotheses = ["level and agreement", "level and self-report"]

[claims.rises]
statement = "It rises."
source = "A"
published = "r = .87"
family = "main"
hypothesis = "level and agreement"
smallest_effect = 0.1

[claims.elsewhere]
statement = "Elsewhere too."
source = "A"
published = "9 of 13"
not_testable = "not public"

[tolerance]
default = 1e-9
"correlations.r" = 1e-6
"""
