"""Clock, ids, database session, errors."""
