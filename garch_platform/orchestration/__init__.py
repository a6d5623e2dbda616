"""The Dagster side: partitions, assets, checks, jobs, schedules, sensors and the launcher."""
