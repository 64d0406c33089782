"""`abruzzi up`: one supervisor of PostgreSQL, API and controller as child processes."""
