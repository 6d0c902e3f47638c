"""What is asked: protocols, parameters, plans, sources and banks of items."""
