"""What exists: the tree that the notification feed tells, kept in SQLite, and the task that keeps it current."""
