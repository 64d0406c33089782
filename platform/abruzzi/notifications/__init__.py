"""Who is told of what: subscriptions, deliveries, webhooks, e-mail."""
