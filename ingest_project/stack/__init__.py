"""The processes of one machine: broker, web, workers, beat and Flower under one supervisor."""
