"""A comparison for people: terminal, page, figures and JSON."""
