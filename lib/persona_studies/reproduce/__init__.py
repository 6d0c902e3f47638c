"""Running the notebooks, and comparing what they make with the reference."""
