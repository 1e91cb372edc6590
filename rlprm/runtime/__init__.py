"""What a stage needs to run: settings, recipes, processes, records and tracking."""
