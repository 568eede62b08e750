"""Maps, models and truths that several tests share."""
