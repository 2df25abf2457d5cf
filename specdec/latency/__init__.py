"""What passes and tokens cost by a profile."""
