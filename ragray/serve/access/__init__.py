"""Who may ask a service, for what, how often; and a line of each request."""
