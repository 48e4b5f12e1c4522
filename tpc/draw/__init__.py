"""Graphs as pictures: layout, collapsing of equal layers, SVG, DOT, JSON, and the page that holds them."""
