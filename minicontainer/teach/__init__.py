"""What teaches: plans told to people (explain, shell), and figures that can be believed (measure, bench)."""
