"""Files in and out; LPS is known here alone."""
