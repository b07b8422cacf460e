"""Documents: what is decided, stored as JSON. Neither torch nor numpy is known here."""
