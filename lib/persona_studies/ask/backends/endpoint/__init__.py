"""What an OpenAI-compatible endpoint takes and answers: address, budget, calls, answers, measures."""
