"""What only the book needs: runs, tables, claims, figures, costs. Only notebooks and the command line import it."""
