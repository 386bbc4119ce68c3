"""What the rooms share and users seldom see."""
