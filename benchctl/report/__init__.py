"""One file per table or figure, and the forms they are printed in."""
