"""Reading a campaign back for people."""
