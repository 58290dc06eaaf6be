"""The method, one idea a file."""
