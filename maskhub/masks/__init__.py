"""What a mask is, where its scores begin, and the algebra of sets of masks. Plain NumPy."""
