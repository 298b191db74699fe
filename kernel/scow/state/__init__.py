"""What is small and must be consistent: SQLite, locks and journals."""
