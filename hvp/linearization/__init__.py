"""A loss at one point: traced, audited, kept, and summed over batches; arrays in and arrays out."""
