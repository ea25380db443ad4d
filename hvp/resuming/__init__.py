"""Work that goes on where it was killed: products and results in a file, found again by content."""
