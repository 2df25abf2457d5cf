"""What an output is worth: whether it is right, repeats itself, and equals plain decoding's."""
