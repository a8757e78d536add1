"""Published figures, reproduced: official files or trainings measured, and compared with the records."""
