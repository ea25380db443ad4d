"""The libraries that are measured, each as an `Implementation`, and the float64 reference."""
