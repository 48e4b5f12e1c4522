"""Kernels of two samples as numbers, and regression with them."""
