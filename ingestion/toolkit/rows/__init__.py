"""The rows of clean parts as one sequence with fixed positions, and the files they are written into."""
