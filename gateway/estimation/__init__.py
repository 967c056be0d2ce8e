"""What a call will cost, learned from what calls have used."""
