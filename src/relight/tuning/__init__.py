"""What was measured on this machine, so that the next run and the next plan need not guess."""
