"""Independent implementations that the compiler's results are compared with."""
