"""Processes, turns, memory and load: how a call is measured, whatever it computes."""
