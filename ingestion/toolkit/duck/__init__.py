"""SQL of people over Parquet files: DuckDB in a process of its own, which can read these files and nothing else."""
