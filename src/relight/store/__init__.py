"""Model files on this machine: how they come here, where they lie, whether they are whole, how they get smaller."""
