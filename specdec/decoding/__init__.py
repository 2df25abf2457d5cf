"""The loop, the target, and the rules by which a draft ends."""
