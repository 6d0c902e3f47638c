"""What the responses say: scores, statistics, gates, verdicts, figures and tables."""
