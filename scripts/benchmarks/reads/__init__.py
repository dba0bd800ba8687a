"""What reading costs, beside other programs that read the same store in the same minutes."""
