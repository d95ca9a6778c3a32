"""nn pieces that two or more methods use."""
