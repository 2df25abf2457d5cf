"""What is asked, and whether the answer is right."""
