"""What suites of questions came to, by who was asked: a row a suite of a report."""
