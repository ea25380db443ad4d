"""Transformations of programs that change speed, never values; each can be switched off."""
