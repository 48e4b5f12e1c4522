"""Limits with numbers in them: state, steps, memory, and what both they and finite networks check."""
