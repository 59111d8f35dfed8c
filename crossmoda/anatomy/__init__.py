"""The two ears: which side is which, and how one compares with the other."""
