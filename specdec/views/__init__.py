"""Records for people's eyes: trajectories in a terminal, and the data and page of the HTML report."""
