"""Helpers behind the persona-studies notebooks."""
