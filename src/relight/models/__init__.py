"""The networks and their tokenizers, each written once as functions over the ops of `graph`."""
