"""Scripts: sweeps for sbatch and bash, and what prints tables and the tree into pages. The program imports none."""
