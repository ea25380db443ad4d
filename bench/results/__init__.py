"""What comes out of a run: the JSON record, the tables and the plot."""
