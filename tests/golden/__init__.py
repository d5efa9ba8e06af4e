"""Outputs of the published networks on fixed random weights, and the script that made them."""
