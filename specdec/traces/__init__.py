"""What was recorded once, and what follows from it: replays, calibrated confidences, a policy that uses them."""
