"""The model that ships with relight: four files in FLUX.1's layout."""
