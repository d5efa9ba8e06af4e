"""relight's own routes: jobs and their events, plans, devices, health and metrics."""
