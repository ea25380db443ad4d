"""What is measured: the problems, their operation counts, the measurements and their targets."""
