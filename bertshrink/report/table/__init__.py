"""What a report says, as one neutral table that every renderer draws."""
