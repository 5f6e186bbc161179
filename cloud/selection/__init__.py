"""What adaptation updates (p-Meta, figure 5): measured, and drawn."""
