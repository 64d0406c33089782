"""The SDK: what people and stage processes import."""
