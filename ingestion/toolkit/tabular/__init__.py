"""Readers of tabular files: detect the format, cut a file into spans, read one span as an Arrow table."""
