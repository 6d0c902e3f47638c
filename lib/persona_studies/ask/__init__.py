"""Asking a model: recordings, their store, prompts and backends."""
