"""Memory that training takes: how the process holds it, its peak, settings that stay within a budget."""
