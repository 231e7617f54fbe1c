"""A study: trainings and evaluations that answer one question together, made one by one and resumable anywhere."""
