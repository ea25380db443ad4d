"""TensorFlow functions as flat programs, and their derivatives: what makes a product right."""
