"""Slow, obvious NumPy versions of the model's pieces, written from the equations; image by image, slot by slot."""
