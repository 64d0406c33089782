"""The platform's own engine behind OpenAI's protocol: any checkpoint that it trained, many chats at a time."""
