"""What the paper reports (arXiv 2507.20534, tables 3 and 4), to be shown beside our own figures."""
