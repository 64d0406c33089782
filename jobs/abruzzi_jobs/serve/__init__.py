"""The platform's own engine behind OpenAI's protocol: any checkpoint that it trained, one request at a time."""
